//! Virtual MFA devices.

use bytes::Bytes;
use sortie_control::{
    ConsecutiveCodes, CreateVirtualMfaDeviceInput, MfaAssignment, MfaDeviceView, NewMfaDevice,
    Recorded,
};
use sortie_wire::{
    Empty,
    shapes::iam::{
        self as wire, AssignmentStatusType, CreateVirtualMFADevice, DeactivateMFADevice,
        DeleteVirtualMFADevice, EnableMFADevice, GetMFADevice, ListMFADevices,
        ListVirtualMFADevices, ResyncMFADevice,
    },
};

use super::{convert, users::listed_user};
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

fn new_device(made: NewMfaDevice) -> wire::VirtualMFADevice {
    wire::VirtualMFADevice {
        serial_number: made.serial_number.to_string(),
        base32_string_seed: Some(Bytes::copy_from_slice(made.seed.expose().as_bytes())),
        qr_code_png: Some(Bytes::copy_from_slice(made.qr_code.expose())),
        tags: convert::tags(made.tags),
        ..wire::VirtualMFADevice::default()
    }
}

fn virtual_device(view: MfaDeviceView) -> wire::VirtualMFADevice {
    wire::VirtualMFADevice {
        serial_number: view.serial_number.to_string(),
        user: view.user.map(listed_user),
        enable_date: view.enabled,
        ..wire::VirtualMFADevice::default()
    }
}

/// A user's device. Both its user and its date are there while it is enabled.
fn users_device(view: MfaDeviceView) -> Option<wire::MFADevice> {
    Some(wire::MFADevice {
        user_name: view.user?.user.name.to_string(),
        serial_number: view.serial_number.to_string(),
        enable_date: view.enabled?,
    })
}

impl Handler for CreateVirtualMFADevice {
    async fn handle(
        scene: Scene<'_>,
        input: wire::CreateVirtualMFADeviceRequest,
    ) -> Result<Recorded<wire::CreateVirtualMFADeviceResponse>, Failure> {
        let input = CreateVirtualMfaDeviceInput {
            path: input.path,
            name: input.virtual_mfa_device_name,
            tags: convert::given_tags(input.tags),
        };
        let control = &scene.house.control;
        let made = control.create_virtual_mfa_device(scene.call, input).await?;
        Ok(made.map(|made| wire::CreateVirtualMFADeviceResponse {
            virtual_mfa_device: new_device(made),
        }))
    }
}

impl Handler for EnableMFADevice {
    async fn handle(
        scene: Scene<'_>,
        input: wire::EnableMFADeviceRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let codes = ConsecutiveCodes {
            user_name: input.user_name,
            serial_number: input.serial_number,
            first: input.authentication_code1,
            second: input.authentication_code2,
        };
        let control = &scene.house.control;
        let done = control.enable_mfa_device(scene.call, codes).await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for ResyncMFADevice {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ResyncMFADeviceRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let codes = ConsecutiveCodes {
            user_name: input.user_name,
            serial_number: input.serial_number,
            first: input.authentication_code1,
            second: input.authentication_code2,
        };
        let control = &scene.house.control;
        let done = control.resync_mfa_device(scene.call, codes).await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for DeactivateMFADevice {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeactivateMFADeviceRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let serial_number = &input.serial_number;
        let control = &scene.house.control;
        let done = control
            .deactivate_mfa_device(scene.call, input.user_name, serial_number)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for DeleteVirtualMFADevice {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeleteVirtualMFADeviceRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let done = control
            .delete_virtual_mfa_device(scene.call, &input.serial_number)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for ListMFADevices {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListMFADevicesRequest,
    ) -> Result<Recorded<wire::ListMFADevicesResponse>, Failure> {
        let asked = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let found = control
            .list_mfa_devices(scene.call, input.user_name, &asked)
            .await?;
        Ok(found.map(|found| {
            let (devices, is_truncated, marker) = convert::listing(found, users_device);
            wire::ListMFADevicesResponse {
                mfa_devices: devices.into_iter().flatten().collect(),
                is_truncated,
                marker,
            }
        }))
    }
}

impl Handler for ListVirtualMFADevices {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListVirtualMFADevicesRequest,
    ) -> Result<Recorded<wire::ListVirtualMFADevicesResponse>, Failure> {
        let asked = convert::page(input.marker, input.max_items);
        let wanted = match input.assignment_status {
            Some(status) if status == AssignmentStatusType::ASSIGNED => MfaAssignment::Assigned,
            Some(status) if status == AssignmentStatusType::UNASSIGNED => MfaAssignment::Unassigned,
            _ => MfaAssignment::Any,
        };
        let control = &scene.house.control;
        let found = control
            .list_virtual_mfa_devices(scene.call, wanted, &asked)
            .await?;
        Ok(found.map(|found| {
            let (virtual_mfa_devices, is_truncated, marker) =
                convert::listing(found, virtual_device);
            wire::ListVirtualMFADevicesResponse {
                virtual_mfa_devices,
                is_truncated,
                marker,
            }
        }))
    }
}

impl Handler for GetMFADevice {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetMFADeviceRequest,
    ) -> Result<Recorded<wire::GetMFADeviceResponse>, Failure> {
        let serial_number = &input.serial_number;
        let control = &scene.house.control;
        let found = control
            .get_mfa_device(scene.call, input.user_name, serial_number)
            .await?;
        Ok(found.map(|found| wire::GetMFADeviceResponse {
            user_name: found.user.map(|view| view.user.name.to_string()),
            serial_number: found.serial_number.to_string(),
            enable_date: found.enabled,
            certifications: None,
        }))
    }
}
