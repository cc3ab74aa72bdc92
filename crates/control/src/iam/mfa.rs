//! Virtual MFA devices: making them, giving them to users, and setting their clocks right.
//!
//! A device is known by its ARN. Its seed is seen once, in the answer that makes it. Two codes in a
//! row prove that somebody has it, and tell how far its clock is off; they are used up with that.

use serde_json::{Value, json};
use sortie_evidence::Resource;
use sortie_ports::{Change, Identity, IdentityKind, MfaDevice, User};
use sortie_types::{Arn, Secret, Tag, Timestamp};

use super::{
    entity::{Held, identity_arn, new_tags, trail_tags},
    error::IamError,
    page::{Page, PageRequest},
    qr_png::qr_png,
    users::{self, UserView, ask_user, ask_with_tags, named_or_caller, user},
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, AskedResource, OperationRule},
    call::{Call, Recorded},
    directory::{Directory, Edit},
    secrets::{self, Attempt, InStep, Refused, base32},
};

/// MFA devices of a user.
pub(crate) const DEVICES_OF_A_USER: usize = 8;
/// MFA devices of an account, assigned or not: as many as users.
pub(crate) const DEVICES: usize = users::USERS;
/// Characters of a serial number, as other operations take it.
const SERIAL_NUMBER_LENGTH: usize = 256;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateVirtualMfaDeviceInput {
    /// `/` when absent.
    pub path: Option<String>,
    /// Its name.
    pub name: String,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

/// A new device, with the only copy of its seed.
#[derive(Clone, Debug)]
pub struct NewMfaDevice {
    /// Its ARN.
    pub serial_number: Arn,
    /// The seed in base32.
    pub seed: Secret,
    /// The seed as a picture that authenticator apps scan: PNG. As secret as the seed.
    pub qr_code: QrCode,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// A picture that shows a secret: it prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct QrCode(Vec<u8>);

impl QrCode {
    /// The PNG file. Whoever calls this answers for where it goes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for QrCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QrCode(…)")
    }
}

/// Two codes in a row of a device.
#[derive(Clone, Debug)]
pub struct ConsecutiveCodes {
    /// Whose device it is or becomes.
    pub user_name: String,
    /// Which.
    pub serial_number: String,
    /// The first.
    pub first: Secret,
    /// The one after it.
    pub second: Secret,
}

/// Which devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MfaAssignment {
    /// Those of users, and others.
    #[default]
    Any,
    /// Those of users.
    Assigned,
    /// Others.
    Unassigned,
}

/// A device as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MfaDeviceView {
    /// Its ARN.
    pub serial_number: Arn,
    /// Whose it is.
    pub user: Option<UserView>,
    /// When it was enabled.
    pub enabled: Option<Timestamp>,
}

fn view(directory: &Directory, names: &Names, device: &MfaDevice) -> MfaDeviceView {
    let user = device.user.as_ref().and_then(|id| directory.user_by_id(id));
    MfaDeviceView {
        serial_number: device.serial_number.clone(),
        user: user.map(|user| users::view(names, user)),
        enabled: device.enabled,
    }
}

fn device<'a>(directory: &'a Directory, serial_number: &str) -> Result<&'a MfaDevice, IamError> {
    directory
        .mfa_device(serial_number)
        .ok_or_else(|| not_found(serial_number))
}

/// A device of this user.
fn device_of<'a>(
    directory: &'a Directory,
    user: &User,
    serial_number: &str,
) -> Result<&'a MfaDevice, IamError> {
    let device = device(directory, serial_number)?;
    if device.user.as_ref() == Some(&user.unique_id) {
        return Ok(device);
    }
    Err(not_found(serial_number))
}

fn not_found(serial_number: &str) -> IamError {
    let why = format!("VirtualMFADevice with serial number {serial_number} doesn't exist.");
    IamError::NoSuchEntity(why)
}

fn resource(device: &MfaDevice) -> Resource {
    Resource {
        kind: "AWS::IAM::VirtualMFADevice",
        arn: device.serial_number.clone(),
    }
}

fn ask_new_device(arn: &Arn, tags: &[(String, String)]) -> Ask {
    let ask = ask_with_tags(Ask::on(arn.clone()), tags);
    if tags.is_empty() {
        return ask;
    }
    ask.also("iam:TagMFADevice", vec![AskedResource::new(arn.clone())])
}

/// Whatever a stranger calls a device: what has no form of an ARN is nobody's device, and is asked
/// about as one of this account.
fn ask_device(directory: &Directory, names: &Names, serial_number: &str) -> Ask {
    let arn = serial_number.parse();
    let arn = arn.unwrap_or_else(|_| identity_arn(names, "mfa", "/", serial_number));
    let asked = AskedResource::new(arn);
    Ask::about(vec![match directory.mfa_device(serial_number) {
        Some(device) => asked.tags(&["aws:ResourceTag"], &device.tags),
        None => asked,
    }])
}

/// What is made of a device before it is known whether it may be.
struct Made {
    serial_number: Arn,
    seed: Secret,
    sealed_seed: Vec<u8>,
    /// `None`: the names are too long for a picture.
    qr_code: Option<QrCode>,
}

impl Made {
    fn short_enough(&self) -> bool {
        self.serial_number.as_str().len() <= SERIAL_NUMBER_LENGTH
    }
}

fn create(
    directory: &Directory,
    made: &Made,
    tags: &[(String, String)],
    now: Timestamp,
) -> Result<Edit<NewMfaDevice>, IamError> {
    let Some(qr_code) = made.qr_code.clone().filter(|_| made.short_enough()) else {
        let why = "The path and name of a virtual MFA device are too long together.";
        return Err(IamError::InvalidInput(why.to_owned()));
    };
    let tags = new_tags(tags)?;
    // As everywhere in IAM, names do not differ by case alone.
    let same = |device: &MfaDevice| {
        let (one, other) = (device.serial_number.as_str(), made.serial_number.as_str());
        one.eq_ignore_ascii_case(other)
    };
    if directory.mfa_devices().any(same) {
        let why = "MFADevice entity at the same path and name already exists.";
        return Err(IamError::EntityAlreadyExists(why.to_owned()));
    }
    if directory.mfa_devices().count() >= DEVICES {
        let why = format!("Cannot exceed quota for VirtualMFADevicesPerAccount: {DEVICES}");
        return Err(IamError::LimitExceeded(why));
    }
    let device = MfaDevice {
        serial_number: made.serial_number.clone(),
        sealed_seed: made.sealed_seed.clone(),
        created: now,
        user: None,
        enabled: None,
        drift_steps: 0,
        tags: tags.clone(),
    };
    let mut shown = json!({"serialNumber": device.serial_number});
    if let (false, Some(members)) = (tags.is_empty(), shown.as_object_mut()) {
        members.insert("tags".to_owned(), trail_tags(&tags));
    }
    Ok(Edit {
        answer: NewMfaDevice {
            serial_number: made.serial_number.clone(),
            seed: made.seed.clone(),
            qr_code,
            tags,
        },
        response: json!({"virtualMFADevice": shown}),
        resources: vec![resource(&device)],
        changes: vec![put(device)],
    })
}

fn put(device: MfaDevice) -> Change {
    Change::PutIdentity(Box::new(Identity::MfaDevice(device)))
}

/// Finds two codes in a row on a device.
type Check<'a> = dyn Fn(&User, &MfaDevice) -> Result<InStep, IamError> + Send + Sync + 'a;

fn enable(
    directory: &Directory,
    names: &Names,
    input: &ConsecutiveCodes,
    (check, now): (&Check<'_>, Timestamp),
) -> Result<Edit<()>, IamError> {
    let user = user(directory, &input.user_name)?;
    let device = device(directory, &input.serial_number)?;
    if device.user.is_some() {
        let why = format!("MFA device {} is already in use.", input.serial_number);
        return Err(IamError::EntityAlreadyExists(why));
    }
    if directory.mfa_devices_of(&user.unique_id).len() >= DEVICES_OF_A_USER {
        let why = format!("Cannot exceed quota for MFADevicesPerUser: {DEVICES_OF_A_USER}");
        return Err(IamError::LimitExceeded(why));
    }
    let found = check(user, device)?;
    let enabled = MfaDevice {
        user: Some(user.unique_id.clone()),
        enabled: Some(now),
        drift_steps: found.drift_steps,
        ..device.clone()
    };
    Ok(assigned(
        names,
        user,
        vec![secrets::use_step(device, found.step), put(enabled)],
    ))
}

fn resync(
    directory: &Directory,
    names: &Names,
    input: &ConsecutiveCodes,
    check: &Check<'_>,
) -> Result<Edit<()>, IamError> {
    let user = user(directory, &input.user_name)?;
    let device = device_of(directory, user, &input.serial_number)?;
    let found = check(user, device)?;
    let set = MfaDevice {
        drift_steps: found.drift_steps,
        ..device.clone()
    };
    Ok(assigned(
        names,
        user,
        vec![secrets::use_step(device, found.step), put(set)],
    ))
}

/// The device stays, and can be enabled again.
fn deactivate(
    directory: &Directory,
    names: &Names,
    user_name: &str,
    serial_number: &str,
) -> Result<Edit<()>, IamError> {
    let user = user(directory, user_name)?;
    let free = MfaDevice {
        user: None,
        enabled: None,
        drift_steps: 0,
        ..device_of(directory, user, serial_number)?.clone()
    };
    Ok(assigned(names, user, vec![put(free)]))
}

/// A change of a user's devices.
fn assigned(names: &Names, user: &User, changes: Vec<Change>) -> Edit<()> {
    Edit {
        answer: (),
        response: Value::Null,
        resources: vec![Held::User(user).resource(names)],
        changes,
    }
}

fn delete(directory: &Directory, serial_number: &str) -> Result<Edit<()>, IamError> {
    let device = device(directory, serial_number)?;
    if device.user.is_some() {
        let why = "MFA VirtualDevice in use. Must deactivate first.";
        return Err(IamError::DeleteConflict(why.to_owned()));
    }
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![resource(device)],
        changes: vec![Change::RemoveIdentity {
            kind: IdentityKind::MfaDevice,
            key: device.serial_number.to_string(),
        }],
    })
}

/// A device's place in listings: when it was made, then a name of fixed length, since a marker has
/// no room for a whole ARN.
fn place(device: &MfaDevice) -> String {
    let name = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        device.serial_number.as_str().as_bytes(),
    );
    let name: String = name
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{:020}{name}", device.created.millis().max(0))
}

fn in_order<'a>(
    directory: &'a Directory,
    names: &'a Names,
    devices: impl Iterator<Item = &'a MfaDevice>,
) -> Vec<(String, MfaDeviceView)> {
    let placed = devices.map(|device| (place(device), view(directory, names, device)));
    let mut placed: Vec<_> = placed.collect();
    placed.sort_by(|(one, _), (other, _)| one.cmp(other));
    placed
}

/// What apps read: the device's name and account, and the seed.
fn otpauth(name: &str, account: &str, seed: &Secret) -> Secret {
    let label: String = name
        .bytes()
        .map(|byte| match byte {
            b'-' | b'.' | b'_' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let seed = seed.expose();
    Secret::new(format!(
        "otpauth://totp/Sortie:{label}%40{account}?secret={seed}&issuer=Sortie"
    ))
}

fn wrong_codes(refused: Refused) -> IamError {
    match refused {
        Refused::Internal(error) => IamError::Internal(error),
        // Whoever guesses too often is not told when a guess was not looked at.
        Refused::Throttled | Refused::Wrong => {
            let why = "Authentication code for device is not valid.";
            IamError::InvalidAuthenticationCode(why.to_owned())
        }
    }
}

impl Control {
    /// `CreateVirtualMFADevice`. It is nobody's until it is enabled.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn create_virtual_mfa_device(
        &self,
        call: &Call,
        input: CreateVirtualMfaDeviceInput,
    ) -> Result<Recorded<NewMfaDevice>, IamError> {
        let made = self.make_device(&input)?;
        self.change_identities(
            call,
            &authorize::CREATE_VIRTUAL_MFA_DEVICE,
            |_| ask_new_device(&made.serial_number, &input.tags),
            |directory, _| create(directory, &made, &input.tags, call.now),
        )
        .await
    }

    fn make_device(&self, input: &CreateVirtualMfaDeviceInput) -> Result<Made, IamError> {
        let names = &self.inner.names;
        let path = input.path.as_deref().unwrap_or("/");
        let serial_number = identity_arn(names, "mfa", path, &input.name);
        let (seed, sealed_seed) = self.inner.secrets.new_seed(&serial_number)?;
        let seed = base32(seed.as_ref());
        let text = otpauth(&input.name, names.account.as_str(), &seed);
        Ok(Made {
            serial_number,
            qr_code: qr_png(text.expose()).map(QrCode),
            seed,
            sealed_seed,
        })
    }

    /// `EnableMFADevice`: gives a device to a user.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn enable_mfa_device(
        &self,
        call: &Call,
        input: ConsecutiveCodes,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let check = self.codes_check(call, &input);
        let outcome = self.change_identities(
            call,
            &authorize::ENABLE_MFA_DEVICE,
            |directory| ask_user(directory, names, &input.user_name),
            |directory, _| enable(directory, names, &input, (&check, call.now)),
        );
        outcome.await
    }

    /// `ResyncMFADevice`: learns how far the device's clock is off.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn resync_mfa_device(
        &self,
        call: &Call,
        input: ConsecutiveCodes,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let check = self.codes_check(call, &input);
        let outcome = self.change_identities(
            call,
            &authorize::RESYNC_MFA_DEVICE,
            |directory| ask_user(directory, names, &input.user_name),
            |directory, _| resync(directory, names, &input, &check),
        );
        outcome.await
    }

    fn codes_check<'a>(
        &'a self,
        call: &'a Call,
        input: &'a ConsecutiveCodes,
    ) -> impl Fn(&User, &MfaDevice) -> Result<InStep, IamError> + Send + Sync + 'a {
        move |user, device| {
            let attempt = Attempt {
                principal: user.unique_id.as_str(),
                source: &call.source_ip,
                now: call.now,
            };
            let codes = [input.first.expose(), input.second.expose()];
            let found = self
                .inner
                .secrets
                .check_consecutive(&attempt, device, codes);
            found.map_err(wrong_codes)
        }
    }

    /// `DeactivateMFADevice`: takes a device from its user, the caller when no name is given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn deactivate_mfa_device(
        &self,
        call: &Call,
        user_name: Option<String>,
        serial_number: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let user_name = named_or_caller(call, user_name)?;
        self.change_identities(
            call,
            &authorize::DEACTIVATE_MFA_DEVICE,
            |directory| ask_user(directory, names, &user_name),
            |directory, _| deactivate(directory, names, &user_name, serial_number),
        )
        .await
    }

    /// `DeleteVirtualMFADevice`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_virtual_mfa_device(
        &self,
        call: &Call,
        serial_number: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::DELETE_VIRTUAL_MFA_DEVICE,
            |directory| ask_device(directory, names, serial_number),
            |directory, _| delete(directory, serial_number),
        )
        .await
    }

    /// `ListMFADevices`, of the caller when no name is given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_mfa_devices(
        &self,
        call: &Call,
        user_name: Option<String>,
        page: &PageRequest,
    ) -> Result<Recorded<Page<MfaDeviceView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_MFA_DEVICES;
        let names = &self.inner.names;
        let user_name = named_or_caller(call, user_name)?;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask_user(directory, names, &user_name),
            |directory, _| {
                let user = user(directory, &user_name)?;
                let devices = directory.mfa_devices_of(&user.unique_id);
                pager.page(in_order(directory, names, devices.into_iter()))
            },
        )
        .await
    }

    /// `ListVirtualMFADevices`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_virtual_mfa_devices(
        &self,
        call: &Call,
        assignment: MfaAssignment,
        page: &PageRequest,
    ) -> Result<Recorded<Page<MfaDeviceView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_VIRTUAL_MFA_DEVICES;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, page)?;
        let wanted = |device: &&MfaDevice| match assignment {
            MfaAssignment::Any => true,
            MfaAssignment::Assigned => device.user.is_some(),
            MfaAssignment::Unassigned => device.user.is_none(),
        };
        self.read_identities(
            call,
            &RULE,
            |_| Ask::any(),
            |directory, _| {
                let devices = directory.mfa_devices().filter(wanted);
                pager.page(in_order(directory, names, devices))
            },
        )
        .await
    }

    /// `GetMFADevice`, of the caller when no name is given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_mfa_device(
        &self,
        call: &Call,
        user_name: Option<String>,
        serial_number: &str,
    ) -> Result<Recorded<MfaDeviceView>, IamError> {
        let names = &self.inner.names;
        let user_name = named_or_caller(call, user_name)?;
        self.read_identities(
            call,
            &authorize::GET_MFA_DEVICE,
            |directory| ask_user(directory, names, &user_name),
            |directory, _| {
                let user = user(directory, &user_name)?;
                let device = device_of(directory, user, serial_number)?;
                Ok(view(directory, names, device))
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use sortie_types::UniqueIdKind;

    use super::*;
    use crate::iam::testing::{NOW, Rows, id, names, text, user as user_row};

    fn row(name: &str, owner: Option<u8>) -> MfaDevice {
        MfaDevice {
            serial_number: identity_arn(&names(), "mfa", "/", name),
            sealed_seed: Vec::new(),
            created: NOW,
            user: owner.map(|byte| id(UniqueIdKind::User, byte)),
            enabled: owner.map(|_| NOW),
            drift_steps: 0,
            tags: Vec::new(),
        }
    }

    fn rows() -> Rows {
        Rows::of([
            Identity::User(user_row("alice", 1)),
            Identity::User(user_row("bob", 2)),
            Identity::MfaDevice(row("free", None)),
            Identity::MfaDevice(row("alices", Some(1))),
        ])
    }

    fn codes(user: &str, device: &str) -> ConsecutiveCodes {
        ConsecutiveCodes {
            user_name: user.to_owned(),
            serial_number: row(device, None).serial_number.to_string(),
            first: Secret::new("111111"),
            second: Secret::new("222222"),
        }
    }

    fn found(_: &User, _: &MfaDevice) -> Result<InStep, IamError> {
        Ok(InStep {
            step: 42,
            drift_steps: 3,
        })
    }

    fn unasked(_: &User, _: &MfaDevice) -> Result<InStep, IamError> {
        panic!("no code is looked at for what cannot be")
    }

    #[test]
    fn the_codes_that_enable_a_device_are_used_up_in_the_same_commit() {
        let (directory, input) = (rows().directory(), codes("bob", "free"));
        let edit = enable(&directory, &names(), &input, (&found, NOW)).unwrap();
        let [
            Change::UseMfaStep { step: 42, .. },
            Change::PutIdentity(put),
        ] = &edit.changes[..]
        else {
            panic!("{:?}", edit.changes)
        };
        let expected = MfaDevice {
            drift_steps: 3,
            ..row("free", Some(2))
        };
        assert_eq!(**put, Identity::MfaDevice(expected));
        let input = codes("alice", "alices");
        let edit = resync(&directory, &names(), &input, &found).unwrap();
        assert!(matches!(
            &edit.changes[..],
            [Change::UseMfaStep { step: 42, .. }, Change::PutIdentity(_)]
        ));
    }

    #[test]
    fn a_device_is_its_users_alone() {
        let directory = rows().directory();
        let taken = codes("bob", "alices");
        let outcome = enable(&directory, &names(), &taken, (&unasked, NOW));
        assert!(matches!(outcome, Err(IamError::EntityAlreadyExists(_))));
        for other in [codes("bob", "alices"), codes("alice", "free")] {
            let serial_number = other.serial_number.clone();
            let why = format!("VirtualMFADevice with serial number {serial_number} doesn't exist.");
            let outcome = resync(&directory, &names(), &other, &unasked);
            assert_eq!(text(outcome), why);
            let outcome = deactivate(&directory, &names(), &other.user_name, &serial_number);
            assert_eq!(text(outcome), why);
        }
    }

    #[test]
    fn a_device_that_was_taken_back_is_as_new() {
        let mut rows = rows();
        let serial_number = row("alices", None).serial_number.to_string();
        rows.edit(|directory| deactivate(directory, &names(), "alice", &serial_number))
            .unwrap();
        let directory = rows.directory();
        assert_eq!(
            directory.mfa_device(&serial_number),
            Some(&row("alices", None))
        );
    }

    #[test]
    fn labels_that_apps_read_are_escaped() {
        let text = otpauth("a+b@c,d=e", "111122223333", &Secret::new("ABC"));
        assert_eq!(
            text.expose(),
            "otpauth://totp/Sortie:a%2Bb%40c%2Cd%3De%40111122223333?secret=ABC&issuer=Sortie"
        );
    }
}
