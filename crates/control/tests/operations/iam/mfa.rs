//! Virtual MFA devices, with codes as an authenticator app shows them.

use std::time::Duration;

use sortie_control::{
    ConsecutiveCodes, CreateVirtualMfaDeviceInput, IamError, MfaAssignment, NewMfaDevice,
};
use sortie_types::Timestamp;
use totp_rs::{Builder, Totp};

use super::{by, code, first, next, refused, user};
use crate::world::{START, World, secret};

/// The app that the seed was given to, with its own clock.
pub(crate) struct App(Totp);

impl App {
    pub(crate) fn of(device: &NewMfaDevice) -> Self {
        let letters = device.seed.expose().bytes().map(|letter| match letter {
            b'A'..=b'Z' => u64::from(letter - b'A'),
            _ => u64::from(letter - b'2') + 26,
        });
        let letters: Vec<u64> = letters.collect();
        let groups = letters.chunks(8).flat_map(|group| {
            let bits = group.iter().fold(0, |bits, letter| bits << 5 | letter);
            bits.to_be_bytes().into_iter().skip(3)
        });
        let seed: Vec<u8> = groups.collect();
        let seed: [u8; 20] = seed.try_into().unwrap();
        Self(Builder::new().with_secret(seed).build().unwrap())
    }

    pub(crate) fn code(&self, at: Timestamp) -> String {
        let seconds = u64::try_from(at.millis()).unwrap() / 1000;
        self.0.generate(seconds).to_string()
    }

    /// The code of this time after the one before it.
    pub(crate) fn two(&self, user: &str, device: &NewMfaDevice, at: Timestamp) -> ConsecutiveCodes {
        ConsecutiveCodes {
            user_name: user.into(),
            serial_number: device.serial_number.to_string(),
            first: secret(&self.code(at.minus(STEP))),
            second: secret(&self.code(at)),
        }
    }
}

pub(crate) const STEP: Duration = Duration::from_secs(30);

pub(crate) async fn device(world: &World, name: &str) -> NewMfaDevice {
    let input = CreateVirtualMfaDeviceInput {
        name: name.into(),
        ..CreateVirtualMfaDeviceInput::default()
    };
    let call = world.admin("CreateVirtualMFADevice");
    let made = world.control.create_virtual_mfa_device(&call, input).await;
    made.unwrap().into_inner()
}

#[tokio::test]
async fn a_device_shows_its_seed_once() {
    let world = World::start().await;
    let made = device(&world, "phone").await;
    let arn = format!("arn:aws:iam::{}:mfa/phone", world.control.account_id());
    assert_eq!(made.serial_number.as_str(), arn);
    assert_eq!(made.seed.expose().len(), 32);
    assert!(made.qr_code.expose().starts_with(b"\x89PNG\r\n\x1a\n"));
    let record = world.record("CreateVirtualMFADevice");
    let shown = &record["responseElements"]["virtualMFADevice"];
    assert_eq!(shown, &serde_json::json!({"serialNumber": arn}));
    assert!(!record.to_string().contains(made.seed.expose()));
    let again = CreateVirtualMfaDeviceInput {
        name: "Phone".into(),
        ..CreateVirtualMfaDeviceInput::default()
    };
    let call = world.admin("CreateVirtualMFADevice");
    let again = world.control.create_virtual_mfa_device(&call, again).await;
    assert_eq!(
        refused(again),
        (
            "EntityAlreadyExists",
            "MFADevice entity at the same path and name already exists.".into()
        )
    );
    let long = CreateVirtualMfaDeviceInput {
        path: Some(format!("/{}/", "x".repeat(300))),
        name: "phone".into(),
        tags: Vec::new(),
    };
    let long = world.control.create_virtual_mfa_device(&call, long).await;
    assert_eq!(code(long), "InvalidInput");
}

#[tokio::test]
async fn two_codes_in_a_row_enable_a_device_and_are_used_up() {
    let world = World::start().await;
    user(&world, "bob").await;
    let made = device(&world, "phone").await;
    let app = App::of(&made);
    let control = &world.control;
    let enable = async |codes: ConsecutiveCodes| {
        let call = world.admin("EnableMFADevice");
        control.enable_mfa_device(&call, codes).await
    };
    let wrong = ConsecutiveCodes {
        second: secret(&app.code(START.plus(STEP))),
        ..app.two("bob", &made, START)
    };
    let text = "Authentication code for device is not valid.".to_owned();
    assert_eq!(
        refused(enable(wrong).await),
        ("InvalidAuthenticationCode", text.clone())
    );
    let nobody = app.two("nobody", &made, START);
    assert_eq!(code(enable(nobody).await), "NoSuchEntity");
    let mut unknown = app.two("bob", &made, START);
    unknown.serial_number.push('x');
    assert_eq!(code(enable(unknown).await), "NoSuchEntity");

    enable(app.two("bob", &made, START)).await.unwrap();
    let again = enable(app.two("bob", &made, START)).await;
    assert_eq!(code(again), "EntityAlreadyExists");

    // What was shown to enable it does not set its clock, nor does an older pair.
    let resync = async |at: Timestamp| {
        let call = world.admin("ResyncMFADevice");
        let codes = app.two("bob", &made, at);
        control.resync_mfa_device(&call, codes).await
    };
    for at in [START, START.minus(STEP)] {
        assert_eq!(
            refused(resync(at).await),
            ("InvalidAuthenticationCode", text.clone())
        );
    }
    resync(START.plus(STEP)).await.unwrap();

    let call = world.admin("ListMFADevices");
    let devices = control
        .list_mfa_devices(&call, Some("bob".into()), &first(10))
        .await;
    let devices = devices.unwrap().into_inner().items;
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].serial_number, made.serial_number);
    assert_eq!(devices[0].enabled, Some(START));
    let owner = devices[0].user.as_ref().unwrap();
    assert_eq!(owner.user.name.as_str(), "bob");
}

#[tokio::test]
async fn guessing_ends_after_a_few_codes_even_with_the_right_ones() {
    let world = World::start().await;
    user(&world, "bob").await;
    let made = device(&world, "phone").await;
    let app = App::of(&made);
    let control = &world.control;
    let call = world.admin("EnableMFADevice");
    for _ in 0..10 {
        let wrong = ConsecutiveCodes {
            first: secret(&app.code(START)),
            ..app.two("bob", &made, START)
        };
        let outcome = control.enable_mfa_device(&call, wrong).await;
        assert_eq!(code(outcome), "InvalidAuthenticationCode");
    }
    let right = control
        .enable_mfa_device(&call, app.two("bob", &made, START))
        .await;
    let right = right;
    assert_eq!(
        refused(right),
        (
            "InvalidAuthenticationCode",
            "Authentication code for device is not valid.".into()
        ),
        "told as a wrong one is"
    );
    let later = START.plus(Duration::from_mins(6));
    let call = world.admin_at("EnableMFADevice", later);
    let right = control
        .enable_mfa_device(&call, app.two("bob", &made, later))
        .await;
    right.unwrap();
}

#[tokio::test]
async fn a_device_is_taken_back_before_it_is_deleted() {
    let world = World::start().await;
    let bob = user(&world, "bob").await;
    user(&world, "carol").await;
    let made = device(&world, "phone").await;
    let app = App::of(&made);
    let control = &world.control;
    let call = world.admin("EnableMFADevice");
    let codes = app.two("bob", &made, START);
    control.enable_mfa_device(&call, codes).await.unwrap();
    let serial_number = made.serial_number.as_str();

    let delete = async || {
        let call = world.admin("DeleteVirtualMFADevice");
        control
            .delete_virtual_mfa_device(&call, serial_number)
            .await
    };
    assert_eq!(
        refused(delete().await),
        (
            "DeleteConflict",
            "MFA VirtualDevice in use. Must deactivate first.".into()
        )
    );
    let gone = control.delete_user(&world.admin("DeleteUser"), "bob").await;
    assert_eq!(
        refused(gone),
        (
            "DeleteConflict",
            "Cannot delete entity, must delete MFA device first.".into()
        )
    );
    let call = world.admin("DeactivateMFADevice");
    for other in [None, Some("carol".to_owned())] {
        let outcome = control
            .deactivate_mfa_device(&call, other, serial_number)
            .await;
        assert_eq!(code(outcome), "NoSuchEntity");
    }
    let call = by(&bob, "DeactivateMFADevice");
    let denied = control
        .deactivate_mfa_device(&call, None, serial_number)
        .await;
    assert!(matches!(denied, Err(IamError::Denied(_))));
    let call = world.admin("DeactivateMFADevice");
    let done = control
        .deactivate_mfa_device(&call, Some("bob".into()), serial_number)
        .await;
    done.unwrap();
    delete().await.unwrap();
    assert_eq!(code(delete().await), "NoSuchEntity");
}

#[tokio::test]
async fn devices_are_listed_by_whether_somebody_has_them() {
    let world = World::start().await;
    user(&world, "bob").await;
    let control = &world.control;
    let mut all = Vec::new();
    for index in 0..5 {
        let made = device(&world, &format!("phone{index}")).await;
        if index % 2 == 0 {
            let codes = App::of(&made).two("bob", &made, START);
            let call = world.admin("EnableMFADevice");
            control.enable_mfa_device(&call, codes).await.unwrap();
        }
        all.push(made.serial_number);
    }
    let call = world.admin("ListVirtualMFADevices");
    for (wanted, expected) in [
        (MfaAssignment::Any, vec![0, 1, 2, 3, 4]),
        (MfaAssignment::Assigned, vec![0, 2, 4]),
        (MfaAssignment::Unassigned, vec![1, 3]),
    ] {
        let (mut seen, mut marker) = (Vec::new(), None);
        loop {
            let page = control
                .list_virtual_mfa_devices(&call, wanted, &next(marker, 2))
                .await;
            let page = page.unwrap().into_inner();
            seen.extend(page.items.into_iter().map(|view| view.serial_number));
            marker = page.marker;
            if marker.is_none() {
                break;
            }
        }
        seen.sort();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|index| all[index].clone())
            .collect();
        assert_eq!(seen, expected);
    }
    let call = world.admin("GetMFADevice");
    let get = async |name: Option<&str>, index: usize| {
        let name = name.map(str::to_owned);
        control
            .get_mfa_device(&call, name, all[index].as_str())
            .await
    };
    let found = get(Some("bob"), 0).await.unwrap().into_inner();
    assert_eq!(found.enabled, Some(START));
    assert_eq!(code(get(Some("bob"), 1).await), "NoSuchEntity");
    assert_eq!(code(get(None, 0).await), "NoSuchEntity");
}

#[tokio::test]
async fn a_user_has_eight_devices_at_most() {
    let world = World::start().await;
    user(&world, "bob").await;
    let control = &world.control;
    let call = world.admin("EnableMFADevice");
    for index in 0..9 {
        let made = device(&world, &format!("phone{index}")).await;
        let codes = App::of(&made).two("bob", &made, START);
        let outcome = control.enable_mfa_device(&call, codes).await;
        if index < 8 {
            outcome.unwrap();
        } else {
            let text = "Cannot exceed quota for MFADevicesPerUser: 8".to_owned();
            assert_eq!(refused(outcome), ("LimitExceeded", text));
        }
    }
}
