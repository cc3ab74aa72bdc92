//! ssm: documents and service settings. Each turns wire types into control's and back.

use sortie_control::{
    CreateDocumentInput, DescribeDocumentPermissionInput, DocumentFilter, DocumentInput,
    DocumentParameterView, DocumentView, ListDocumentVersionsInput, ListDocumentsInput,
    ModifyDocumentPermissionInput, Recorded, ServiceSettingInput, ServiceSettingView, SharedWith,
    UpdateDocumentInput, UpdateServiceSettingInput,
};
use sortie_wire::shapes::ssm::{
    self as wire, CreateDocument, DeleteDocument, DescribeDocument, DescribeDocumentPermission,
    GetDocument, GetServiceSetting, ListDocumentVersions, ListDocuments, ModifyDocumentPermission,
    ResetServiceSetting, UpdateDocument, UpdateDocumentDefaultVersion, UpdateServiceSetting,
};

use super::{
    Handler, Scene,
    ssm::{page_size, pairs, platform, tags},
};
use crate::errors::Failure;

impl Handler for CreateDocument {
    async fn handle(
        scene: Scene<'_>,
        input: wire::CreateDocumentRequest,
    ) -> Result<Recorded<wire::CreateDocumentResult>, Failure> {
        let input = CreateDocumentInput {
            has_more: is_some(input.attachments.as_ref()) || is_some(input.requires.as_ref()),
            name: input.name,
            content: input.content,
            format: input.document_format.map(|format| format.to_string()),
            document_type: input.document_type.map(|kind| kind.to_string()),
            version_name: input.version_name,
            display_name: input.display_name,
            target_type: input.target_type,
            tags: pairs(input.tags),
        };
        let control = &scene.house.control;
        let output = control.create_document(scene.call, input).await?;
        Ok(output.map(|view| wire::CreateDocumentResult {
            document_description: Some(description(view)),
        }))
    }
}

/// Whether there is anything in a list.
fn is_some<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

impl Handler for UpdateDocument {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateDocumentRequest,
    ) -> Result<Recorded<wire::UpdateDocumentResult>, Failure> {
        let input = UpdateDocumentInput {
            has_more: is_some(input.attachments.as_ref()),
            name: input.name,
            content: input.content,
            format: input.document_format.map(|format| format.to_string()),
            version: input.document_version,
            version_name: input.version_name,
            display_name: input.display_name,
            target_type: input.target_type,
        };
        let control = &scene.house.control;
        let output = control.update_document(scene.call, input).await?;
        Ok(output.map(|view| wire::UpdateDocumentResult {
            document_description: Some(description(view)),
        }))
    }
}

impl Handler for UpdateDocumentDefaultVersion {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateDocumentDefaultVersionRequest,
    ) -> Result<Recorded<wire::UpdateDocumentDefaultVersionResult>, Failure> {
        let input = DocumentInput {
            name: input.name,
            version: Some(input.document_version),
            version_name: None,
        };
        let control = &scene.house.control;
        let output = control
            .update_document_default_version(scene.call, input)
            .await?;
        let description = |view: DocumentView| wire::DocumentDefaultVersionDescription {
            name: Some(view.name),
            default_version: Some(view.default_version.to_string()),
            default_version_name: view.version_name,
        };
        Ok(output.map(|view| wire::UpdateDocumentDefaultVersionResult {
            description: Some(description(view)),
        }))
    }
}

impl Handler for DeleteDocument {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeleteDocumentRequest,
    ) -> Result<Recorded<wire::DeleteDocumentResult>, Failure> {
        let input = DocumentInput {
            name: input.name,
            version: input.document_version,
            version_name: input.version_name,
        };
        let control = &scene.house.control;
        let output = control.delete_document(scene.call, input).await?;
        Ok(output.map(|()| wire::DeleteDocumentResult {}))
    }
}

impl Handler for GetDocument {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetDocumentRequest,
    ) -> Result<Recorded<wire::GetDocumentResult>, Failure> {
        let format = input.document_format.map(|format| format.to_string());
        let input = DocumentInput {
            name: input.name,
            version: input.document_version,
            version_name: input.version_name,
        };
        let control = &scene.house.control;
        let output = control
            .get_document(scene.call, input, format.as_deref())
            .await?;
        Ok(output.map(|output| wire::GetDocumentResult {
            name: Some(output.view.name),
            created_date: Some(output.view.created),
            display_name: output.view.display_name,
            version_name: output.view.version_name,
            document_version: Some(output.view.version.to_string()),
            status: Some(wire::DocumentStatus::ACTIVE),
            content: Some(output.content),
            document_type: Some(wire::DocumentType::SESSION),
            document_format: Some(output.format.as_str().into()),
            ..wire::GetDocumentResult::default()
        }))
    }
}

impl Handler for DescribeDocument {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DescribeDocumentRequest,
    ) -> Result<Recorded<wire::DescribeDocumentResult>, Failure> {
        let input = DocumentInput {
            name: input.name,
            version: input.document_version,
            version_name: input.version_name,
        };
        let control = &scene.house.control;
        let output = control.describe_document(scene.call, input).await?;
        Ok(output.map(|view| wire::DescribeDocumentResult {
            document: Some(description(view)),
        }))
    }
}

fn description(view: DocumentView) -> wire::DocumentDescription {
    let platform_types = platforms(&view);
    let parameter = |parameter: DocumentParameterView| wire::DocumentParameter {
        name: Some(parameter.name),
        r#type: Some(parameter.kind.into()),
        description: parameter.description,
        default_value: parameter.default,
    };
    wire::DocumentDescription {
        hash: Some(view.hash),
        hash_type: Some(wire::DocumentHashType::SHA256),
        name: Some(view.name),
        display_name: view.display_name,
        version_name: view.version_name,
        owner: Some(view.owner),
        created_date: Some(view.created),
        status: Some(wire::DocumentStatus::ACTIVE),
        document_version: Some(view.version.to_string()),
        description: view.description,
        parameters: Some(view.parameters.into_iter().map(parameter).collect()),
        platform_types: Some(platform_types),
        document_type: Some(wire::DocumentType::SESSION),
        schema_version: Some("1.0".to_owned()),
        latest_version: Some(view.latest_version.to_string()),
        default_version: Some(view.default_version.to_string()),
        document_format: Some(view.format.as_str().into()),
        target_type: view.target_type,
        tags: Some(tags(view.tags)),
        ..wire::DocumentDescription::default()
    }
}

fn platforms(view: &DocumentView) -> Vec<wire::PlatformType> {
    let names = view.platform_types.iter();
    names.filter_map(|name| platform(name)).collect()
}

impl Handler for ListDocuments {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListDocumentsRequest,
    ) -> Result<Recorded<wire::ListDocumentsResult>, Failure> {
        let old = input.document_filter_list.into_iter().flatten();
        let old = old.map(|filter| DocumentFilter {
            key: filter.key.to_string(),
            values: vec![filter.value],
        });
        let new = input.filters.into_iter().flatten();
        let new = new.map(|filter| DocumentFilter {
            key: filter.key.unwrap_or_default(),
            values: filter.values.unwrap_or_default(),
        });
        let input = ListDocumentsInput {
            filters: old.chain(new).collect(),
            max_results: page_size(input.max_results),
            next_token: input.next_token,
        };
        let control = &scene.house.control;
        let output = control.list_documents(scene.call, input).await?;
        Ok(output.map(|page| wire::ListDocumentsResult {
            document_identifiers: Some(page.items.into_iter().map(identifier).collect()),
            next_token: page.next_token,
        }))
    }
}

fn identifier(view: DocumentView) -> wire::DocumentIdentifier {
    let platform_types = platforms(&view);
    wire::DocumentIdentifier {
        name: Some(view.name),
        created_date: Some(view.created),
        display_name: view.display_name,
        owner: Some(view.owner),
        version_name: view.version_name,
        platform_types: Some(platform_types),
        document_version: Some(view.version.to_string()),
        document_type: Some(wire::DocumentType::SESSION),
        schema_version: Some("1.0".to_owned()),
        document_format: Some(view.format.as_str().into()),
        target_type: view.target_type,
        tags: Some(tags(view.tags)),
        ..wire::DocumentIdentifier::default()
    }
}

impl Handler for ListDocumentVersions {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListDocumentVersionsRequest,
    ) -> Result<Recorded<wire::ListDocumentVersionsResult>, Failure> {
        let input = ListDocumentVersionsInput {
            name: input.name,
            max_results: page_size(input.max_results),
            next_token: input.next_token,
        };
        let control = &scene.house.control;
        let output = control.list_document_versions(scene.call, input).await?;
        let version = |view: DocumentView| wire::DocumentVersionInfo {
            is_default_version: Some(view.version == view.default_version),
            name: Some(view.name),
            display_name: view.display_name,
            document_version: Some(view.version.to_string()),
            version_name: view.version_name,
            created_date: Some(view.version_created),
            document_format: Some(view.format.as_str().into()),
            status: Some(wire::DocumentStatus::ACTIVE),
            ..wire::DocumentVersionInfo::default()
        };
        Ok(output.map(|page| wire::ListDocumentVersionsResult {
            document_versions: Some(page.items.into_iter().map(version).collect()),
            next_token: page.next_token,
        }))
    }
}

impl Handler for DescribeDocumentPermission {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DescribeDocumentPermissionRequest,
    ) -> Result<Recorded<wire::DescribeDocumentPermissionResponse>, Failure> {
        let input = DescribeDocumentPermissionInput {
            name: input.name,
            max_results: page_size(input.max_results),
            next_token: input.next_token,
        };
        let control = &scene.house.control;
        let output = control
            .describe_document_permission(scene.call, input)
            .await?;
        let sharing = |shared: SharedWith| wire::AccountSharingInfo {
            account_id: Some(shared.account),
            shared_document_version: shared.version,
        };
        Ok(output.map(|page| {
            let accounts = page.items.iter().map(|shared| shared.account.clone());
            wire::DescribeDocumentPermissionResponse {
                account_ids: Some(accounts.collect()),
                account_sharing_info_list: Some(page.items.into_iter().map(sharing).collect()),
                next_token: page.next_token,
            }
        }))
    }
}

impl Handler for ModifyDocumentPermission {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ModifyDocumentPermissionRequest,
    ) -> Result<Recorded<wire::ModifyDocumentPermissionResponse>, Failure> {
        let input = ModifyDocumentPermissionInput {
            name: input.name,
            add: input.account_ids_to_add.unwrap_or_default(),
            remove: input.account_ids_to_remove.unwrap_or_default(),
            version: input.shared_document_version,
        };
        let control = &scene.house.control;
        let output = control
            .modify_document_permission(scene.call, input)
            .await?;
        Ok(output.map(|()| wire::ModifyDocumentPermissionResponse {}))
    }
}

impl Handler for GetServiceSetting {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetServiceSettingRequest,
    ) -> Result<Recorded<wire::GetServiceSettingResult>, Failure> {
        let input = ServiceSettingInput {
            setting_id: input.setting_id,
        };
        let control = &scene.house.control;
        let output = control.get_service_setting(scene.call, input).await?;
        Ok(output.map(|view| wire::GetServiceSettingResult {
            service_setting: Some(setting(view)),
        }))
    }
}

impl Handler for UpdateServiceSetting {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateServiceSettingRequest,
    ) -> Result<Recorded<wire::UpdateServiceSettingResult>, Failure> {
        let input = UpdateServiceSettingInput {
            setting_id: input.setting_id,
            setting_value: input.setting_value,
        };
        let control = &scene.house.control;
        let output = control.update_service_setting(scene.call, input).await?;
        Ok(output.map(|()| wire::UpdateServiceSettingResult {}))
    }
}

impl Handler for ResetServiceSetting {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ResetServiceSettingRequest,
    ) -> Result<Recorded<wire::ResetServiceSettingResult>, Failure> {
        let input = ServiceSettingInput {
            setting_id: input.setting_id,
        };
        let control = &scene.house.control;
        let output = control.reset_service_setting(scene.call, input).await?;
        Ok(output.map(|view| wire::ResetServiceSettingResult {
            service_setting: Some(setting(view)),
        }))
    }
}

fn setting(view: ServiceSettingView) -> wire::ServiceSetting {
    let status = match view.modified {
        Some(_) => "Customized",
        None => "Default",
    };
    let (modified, modified_by) = view.modified.unzip();
    wire::ServiceSetting {
        setting_id: Some(view.id),
        setting_value: Some(view.value),
        last_modified_date: modified,
        // What nobody set was set by the service.
        last_modified_user: Some(modified_by.unwrap_or_else(|| "System".to_owned())),
        arn: Some(view.arn.to_string()),
        status: Some(status.to_owned()),
    }
}
