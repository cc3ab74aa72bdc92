//! Generates `crates/wire/src/shapes` from the service models inside a pinned botocore package,
//! and from our own models of the operations that only nodes use and that only Sortie has.
//!
//! Taken over are names, types, constraints and error codes; never prose. To offer another
//! operation add its name to [`MODULES`] and run `cargo xtask codegen`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

/// The botocore release whose models we follow.
const BOTOCORE: &str = "1.43.11";

/// A generated module.
struct Module {
    /// The file, without `.rs`.
    name: &'static str,
    /// Where its model is.
    model: Model,
    /// The variant of `Service`, unless an operation of the model says another.
    service: &'static str,
    /// The operations wanted, in the order of the file. None: all of the model.
    operations: &'static [&'static str],
}

enum Model {
    /// A folder of botocore's `data`.
    Botocore(&'static str),
    /// A file of this repository.
    Own(&'static str),
}

const MODULES: &[Module] = &[
    Module {
        name: "cloudtrail",
        model: Model::Botocore("cloudtrail/2013-11-01"),
        service: "CloudTrail",
        operations: &["LookupEvents"],
    },
    Module {
        name: "iam",
        model: Model::Botocore("iam/2010-05-08"),
        service: "Iam",
        operations: &[
            "AddUserToGroup",
            "AttachGroupPolicy",
            "AttachRolePolicy",
            "AttachUserPolicy",
            "ChangePassword",
            "CreateAccessKey",
            "CreateGroup",
            "CreateLoginProfile",
            "CreatePolicy",
            "CreatePolicyVersion",
            "CreateRole",
            "CreateUser",
            "CreateVirtualMFADevice",
            "DeactivateMFADevice",
            "DeleteAccessKey",
            "DeleteGroup",
            "DeleteGroupPolicy",
            "DeleteLoginProfile",
            "DeletePolicy",
            "DeletePolicyVersion",
            "DeleteRole",
            "DeleteRolePermissionsBoundary",
            "DeleteRolePolicy",
            "DeleteUser",
            "DeleteUserPermissionsBoundary",
            "DeleteUserPolicy",
            "DeleteVirtualMFADevice",
            "DetachGroupPolicy",
            "DetachRolePolicy",
            "DetachUserPolicy",
            "EnableMFADevice",
            "GetAccessKeyLastUsed",
            "GetAccountAuthorizationDetails",
            "GetAccountSummary",
            "GetContextKeysForCustomPolicy",
            "GetContextKeysForPrincipalPolicy",
            "GetGroup",
            "GetGroupPolicy",
            "GetLoginProfile",
            "GetMFADevice",
            "GetPolicy",
            "GetPolicyVersion",
            "GetRole",
            "GetRolePolicy",
            "GetUser",
            "GetUserPolicy",
            "ListAccessKeys",
            "ListAttachedGroupPolicies",
            "ListAttachedRolePolicies",
            "ListAttachedUserPolicies",
            "ListEntitiesForPolicy",
            "ListGroupPolicies",
            "ListGroups",
            "ListGroupsForUser",
            "ListInstanceProfilesForRole",
            "ListMFADevices",
            "ListPolicies",
            "ListPolicyTags",
            "ListPolicyVersions",
            "ListRolePolicies",
            "ListRoleTags",
            "ListRoles",
            "ListSSHPublicKeys",
            "ListServiceSpecificCredentials",
            "ListSigningCertificates",
            "ListUserPolicies",
            "ListUserTags",
            "ListUsers",
            "ListVirtualMFADevices",
            "PutGroupPolicy",
            "PutRolePermissionsBoundary",
            "PutRolePolicy",
            "PutUserPermissionsBoundary",
            "PutUserPolicy",
            "RemoveUserFromGroup",
            "ResyncMFADevice",
            "SetDefaultPolicyVersion",
            "SimulateCustomPolicy",
            "SimulatePrincipalPolicy",
            "TagPolicy",
            "TagRole",
            "TagUser",
            "UntagPolicy",
            "UntagRole",
            "UntagUser",
            "UpdateAccessKey",
            "UpdateAssumeRolePolicy",
            "UpdateGroup",
            "UpdateLoginProfile",
            "UpdateRole",
            "UpdateRoleDescription",
            "UpdateUser",
        ],
    },
    Module {
        name: "node",
        model: Model::Own("crates/wire/models/node.json"),
        service: "Ssm",
        operations: &[],
    },
    Module {
        name: "sortie",
        model: Model::Own("crates/wire/models/sortie.json"),
        service: "Sortie",
        operations: &[],
    },
    Module {
        name: "ssm",
        model: Model::Botocore("ssm/2014-11-06"),
        service: "Ssm",
        operations: &[
            "AddTagsToResource",
            "CreateActivation",
            "CreateDocument",
            "DeleteActivation",
            "DeleteDocument",
            "DeregisterManagedInstance",
            "DescribeActivations",
            "DescribeDocument",
            "DescribeDocumentPermission",
            "DescribeInstanceInformation",
            "DescribeInstanceProperties",
            "DescribeSessions",
            "GetConnectionStatus",
            "GetDocument",
            "GetServiceSetting",
            "ListDocumentVersions",
            "ListDocuments",
            "ListTagsForResource",
            "ModifyDocumentPermission",
            "RemoveTagsFromResource",
            "ResetServiceSetting",
            "ResumeSession",
            "StartSession",
            "TerminateSession",
            "UpdateDocument",
            "UpdateDocumentDefaultVersion",
            "UpdateManagedInstanceRole",
            "UpdateServiceSetting",
        ],
    },
    Module {
        name: "sts",
        model: Model::Botocore("sts/2011-06-15"),
        service: "Sts",
        operations: &["AssumeRole", "GetCallerIdentity", "GetSessionToken"],
    },
];

/// Shapes that must not be shown although the models do not mark them.
const SECRET_SHAPES: &[&str] = &[
    "ActivationCode",
    "SessionToken",
    "TokenValue",
    "accessKeySecretType",
    "authenticationCodeType",
    "tokenCodeType",
    "tokenType",
];

/// Patterns in Java's dialect that need more than the rules of [`translate`]: as in the model, and
/// as we compile them.
const PATTERNS: &[(&str, &str)] = &[
    // A length check, which the shape's own length repeats; a counted dot is costly to compile.
    ("^.{1,100000}$", "^.+$"),
    // Not only white space: the dialect has no look-ahead.
    (r"^(?!\s*$).+", r"^.*\S.*$"),
    // Java reads four digits after \u; the five that are written here are meant.
    (
        r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+",
        r"[\x{9}\x{A}\x{D}\x{20}-\x{7E}\x{85}\x{A0}-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}]+",
    ),
];

/// Options of the chore.
#[derive(Args)]
pub(crate) struct Options {
    /// Change nothing; fail when a file is not what would be generated
    #[arg(long)]
    pub(crate) check: bool,
    /// The `data` folder of a botocore package, instead of installing the pinned one
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
}

/// Generates every module, or says which are stale.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = root()?;
    let models = match &options.models {
        Some(folder) => folder.clone(),
        None => install_models(root)?,
    };
    let mut stale = Vec::new();
    for module in MODULES {
        let generated = generate(module, &read_model(root, &models, &module.model)?)?;
        let path = root
            .join("crates/wire/src/shapes")
            .join(module.name)
            .with_extension("rs");
        if fs::read_to_string(&path).ok().as_deref() == Some(&generated) {
            continue;
        }
        if options.check {
            stale.push(module.name);
        } else {
            fs::write(&path, generated)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    ensure!(
        stale.is_empty(),
        "stale, run `cargo xtask codegen`: {}",
        stale.join(", ")
    );
    Ok(())
}

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no parent folder")
}

fn generate(module: &Module, model: &Value) -> Result<String> {
    let source = Generator::new(module, model)
        .and_then(|mut generator| generator.module())
        .with_context(|| format!("module {}", module.name))?;
    format_source(&source)
}

/// Installs the pinned package under `target`, once.
fn install_models(root: &Path) -> Result<PathBuf> {
    let folder = root
        .join("target/models")
        .join(format!("botocore-{BOTOCORE}"));
    let data = folder.join("botocore/data");
    // The metadata folder is what pip writes last.
    if !folder
        .join(format!("botocore-{BOTOCORE}.dist-info/RECORD"))
        .is_file()
    {
        let status = Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ])
            .arg("--upgrade")
            .arg("--target")
            .arg(&folder)
            .arg(format!("botocore=={BOTOCORE}"))
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .stdout(Stdio::null())
            .status()
            .context("cannot run python3 to install the models; or pass --models")?;
        ensure!(
            status.success(),
            "pip could not install botocore {BOTOCORE}"
        );
    }
    Ok(data)
}

fn read_model(root: &Path, models: &Path, model: &Model) -> Result<Value> {
    let bytes = match model {
        Model::Own(path) => fs::read(root.join(path)).with_context(|| (*path).to_owned())?,
        Model::Botocore(folder) => {
            let plain = models.join(folder).join("service-2.json");
            let packed = plain.with_extension("json.gz");
            if packed.is_file() {
                let mut bytes = Vec::new();
                flate2::read::GzDecoder::new(fs::File::open(&packed)?).read_to_end(&mut bytes)?;
                bytes
            } else {
                fs::read(&plain).with_context(|| format!("no model {}", plain.display()))?
            }
        }
    };
    Ok(serde_json::from_slice(&bytes)?)
}

fn format_source(source: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run rustfmt")?;
    rustfmt
        .stdin
        .take()
        .context("rustfmt has no input")?
        .write_all(source.as_bytes())?;
    let output = rustfmt.wait_with_output()?;
    ensure!(
        output.status.success(),
        "rustfmt refuses the generated source"
    );
    Ok(String::from_utf8(output.stdout)?)
}

struct Generator<'a> {
    module: &'a Module,
    model: &'a Value,
    operations: Vec<&'a str>,
    /// Shapes used, by name.
    shapes: BTreeSet<&'a str>,
    /// The structures that are operations' outputs themselves.
    outputs: BTreeSet<&'a str>,
}

impl<'a> Generator<'a> {
    fn new(module: &'a Module, model: &'a Value) -> Result<Self> {
        let known = model["operations"]
            .as_object()
            .context("the model has no operations")?;
        let operations: Vec<&str> = if module.operations.is_empty() {
            known.keys().map(String::as_str).collect()
        } else {
            module.operations.to_vec()
        };
        let mut generator = Self {
            module,
            model,
            operations,
            shapes: BTreeSet::new(),
            outputs: BTreeSet::new(),
        };
        for name in generator.operations.clone() {
            ensure!(
                known.contains_key(name),
                "the model has no operation {name}"
            );
            for side in ["input", "output"] {
                if let Some(shape) = model["operations"][name][side]["shape"].as_str() {
                    generator.collect(shape)?;
                    if side == "output" {
                        generator.outputs.insert(shape);
                    }
                }
            }
        }
        Ok(generator)
    }

    fn shape(&self, name: &str) -> Result<&'a Value> {
        self.model["shapes"]
            .get(name)
            .with_context(|| format!("the model has no shape {name}"))
    }

    fn collect(&mut self, name: &'a str) -> Result<()> {
        if self.shapes.insert(name) {
            for target in targets(self.shape(name)?) {
                self.collect(target)?;
            }
        }
        Ok(())
    }

    fn module(&mut self) -> Result<String> {
        let mut body = String::new();
        self.operations_table(&mut body)?;
        self.structures(&mut body)?;
        self.enums(&mut body)?;
        self.kinds(&mut body)?;
        self.errors(&mut body)?;
        let source = match self.module.model {
            Model::Botocore(folder) => format!("botocore {BOTOCORE}, `{folder}`"),
            Model::Own(path) => format!("`{path}`"),
        };
        let mut text = format!(
            "//! Operations and shapes of the module `{}`, generated by `cargo xtask codegen` from\n\
             //! {source}. Not edited by hand; the macros are in `shape.rs`.\n\n",
            self.module.name
        );
        text.push_str(&imports(&body));
        text.push_str(&body);
        Ok(text)
    }

    fn operations_table(&self, text: &mut String) -> Result<()> {
        text.push_str("operations! {\n");
        for name in &self.operations {
            let operation = &self.model["operations"][*name];
            let side = |side: &str| operation[side]["shape"].as_str().unwrap_or("Empty");
            let reads = ["Describe", "Explain", "Get", "List", "Lookup", "Simulate"]
                .iter()
                .any(|verb| name.starts_with(verb));
            let mut errors = Vec::new();
            for error in members_of(&operation["errors"]) {
                errors.push(format!("{:?}", self.error(error["shape"].as_str())?.0));
            }
            writeln!(
                text,
                "    {} {} {name}({}) -> {} [{}];",
                operation["service"].as_str().unwrap_or(self.module.service),
                if reads { "read" } else { "write" },
                side("input"),
                side("output"),
                errors.join(", "),
            )?;
        }
        text.push_str("}\n");
        Ok(())
    }

    /// Code and status of a modelled error.
    fn error(&self, shape: Option<&str>) -> Result<(String, u64)> {
        let name = shape.context("an error without shape")?;
        let error = &self.shape(name)?["error"];
        let code = error["code"].as_str().unwrap_or(name);
        // The models seldom mark faults, but an internal error is the server's by its name.
        let fault = self.shape(name)?["fault"] == true || code.starts_with("Internal");
        let status = error["httpStatusCode"]
            .as_u64()
            .unwrap_or(if fault { 500 } else { 400 });
        Ok((code.to_owned(), status))
    }

    fn errors(&self, text: &mut String) -> Result<()> {
        let mut errors = BTreeMap::new();
        for name in &self.operations {
            for error in members_of(&self.model["operations"][*name]["errors"]) {
                let (code, status) = self.error(error["shape"].as_str())?;
                errors.insert(snake(&code), (code, status));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        text.push_str("\nerrors! {\n");
        for (function, (code, status)) in errors {
            writeln!(text, "    {function} = {code:?} {status};")?;
        }
        text.push_str("}\n");
        Ok(())
    }

    fn structures(&self, text: &mut String) -> Result<()> {
        for name in &self.shapes {
            let shape = self.shape(name)?;
            if shape["type"] == "structure" {
                let role = if self.outputs.contains(name) {
                    "output"
                } else {
                    "structure"
                };
                let derives = self.derives(name)?;
                write!(
                    text,
                    "\nshape! {{\n{derives}    {role} {} {{\n",
                    camel(name)
                )?;
                for (wire, member) in members(shape) {
                    let presence = if is_required(shape, wire) {
                        "required"
                    } else {
                        "optional"
                    };
                    let target = target(member)?;
                    writeln!(
                        text,
                        "        {presence} {}: {} = {:?} {};",
                        field(wire),
                        self.rust_type(target)?,
                        member["locationName"].as_str().unwrap_or(wire),
                        self.kind_name(target)?,
                    )?;
                }
                text.push_str("    }\n}\n");
            }
        }
        Ok(())
    }

    /// `Default` where no required member lacks one, equality where no secret is inside.
    fn derives(&self, name: &str) -> Result<String> {
        let mut derives = Vec::new();
        if self.has_default(name)? {
            derives.push("Default");
        }
        if !self.reaches(name, &mut BTreeSet::new(), &|shape, target| {
            is_secret(shape, target)
        })? {
            derives.push("PartialEq");
        }
        Ok(if derives.is_empty() {
            String::new()
        } else {
            format!("    #[derive({})]\n", derives.join(", "))
        })
    }

    fn has_default(&self, name: &str) -> Result<bool> {
        let shape = self.shape(name)?;
        match shape["type"].as_str() {
            Some("structure") => {
                for (wire, member) in members(shape) {
                    if is_required(shape, wire) && !self.has_default(target(member)?)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Some("string") => Ok(!is_secret(shape, name)),
            Some("timestamp") => Ok(false),
            _ => Ok(true),
        }
    }

    fn reaches(
        &self,
        name: &'a str,
        seen: &mut BTreeSet<&'a str>,
        test: &dyn Fn(&Value, &str) -> bool,
    ) -> Result<bool> {
        let shape = self.shape(name)?;
        if test(shape, name) {
            return Ok(true);
        }
        if seen.insert(name) {
            for target in targets(shape) {
                if self.reaches(target, seen, test)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn enums(&self, text: &mut String) -> Result<()> {
        for name in &self.shapes {
            let values: Vec<&str> = members_of(&self.shape(name)?["enum"])
                .filter_map(Value::as_str)
                .collect();
            if values.is_empty() {
                continue;
            }
            write!(text, "\nstring_enum! {{\n    {} {{\n", camel(name))?;
            for value in values {
                writeln!(text, "        {} = {value:?},", constant(value))?;
            }
            text.push_str("    }\n}\n");
        }
        Ok(())
    }

    fn kinds(&self, text: &mut String) -> Result<()> {
        text.push_str("\nkinds! {\n");
        for name in &self.shapes {
            let shape = self.shape(name)?;
            let is_root = shape["type"] == "structure" && !self.is_member(name)?;
            if is_root || plain_kind(shape, name).is_some() {
                continue;
            }
            let kind = self
                .kind(name, shape)
                .with_context(|| format!("shape {name}"))?;
            writeln!(text, "    {} = {kind};", constant(name))?;
        }
        text.push_str("}\n");
        Ok(())
    }

    /// Whether some shape in use has this one inside, so that a kind is needed for it.
    fn is_member(&self, name: &str) -> Result<bool> {
        for outer in &self.shapes {
            if targets(self.shape(outer)?).contains(&name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn kind_name(&self, target: &str) -> Result<String> {
        Ok(plain_kind(self.shape(target)?, target).map_or_else(|| constant(target), str::to_owned))
    }

    fn kind(&self, name: &str, shape: &Value) -> Result<String> {
        let of = |member: &str| self.kind_name(target(&shape[member])?);
        let mut kind = match shape["type"].as_str() {
            Some("structure") => return Ok(format!("structure::<{}>()", camel(name))),
            Some("string") if shape["enum"].is_array() => {
                return Ok(format!("enumeration::<{}>()", camel(name)));
            }
            Some("string") if is_secret(shape, name) => "secret()".to_owned(),
            Some("string") => "text()".to_owned(),
            Some("blob") => "blob()".to_owned(),
            Some("integer") => "integer()".to_owned(),
            Some("long") => "long()".to_owned(),
            Some("list") => format!("list(&{})", of("member")?),
            Some("map") => format!("map(&{}, &{})", of("key")?, of("value")?),
            other => bail!("type {other:?} is not known here"),
        };
        if let Some(element) = shape["member"]["locationName"].as_str() {
            write!(kind, ".named({element:?})")?;
        }
        if shape["flattened"] == true {
            kind.push_str(".flattened()");
        }
        kind.push_str(&constraints(shape)?);
        Ok(kind)
    }

    fn rust_type(&self, name: &str) -> Result<String> {
        let shape = self.shape(name)?;
        let of = |member: &str| self.rust_type(target(&shape[member])?);
        Ok(match shape["type"].as_str() {
            Some("structure") => camel(name),
            Some("string") if shape["enum"].is_array() => camel(name),
            Some("string") if is_secret(shape, name) => "Secret".to_owned(),
            Some("string") => "String".to_owned(),
            Some("blob") => "Bytes".to_owned(),
            Some("boolean") => "bool".to_owned(),
            Some("integer") => "i32".to_owned(),
            Some("long") => "i64".to_owned(),
            Some("float" | "double") => "f64".to_owned(),
            Some("timestamp") => "Timestamp".to_owned(),
            Some("list") => format!("Vec<{}>", of("member")?),
            Some("map") => format!("BTreeMap<String, {}>", of("value")?),
            other => bail!("type {other:?} of shape {name} is not known here"),
        })
    }
}

/// The `use` lines for what the body names.
fn imports(body: &str) -> String {
    let uses = |name: &str| body.contains(name);
    let listed = |candidates: &[(&str, &str)]| -> String {
        let names: Vec<&str> = candidates
            .iter()
            .filter(|(mark, _)| uses(mark))
            .map(|(_, name)| *name)
            .collect();
        names.join(", ")
    };
    let mut text = String::new();
    if uses("BTreeMap<") {
        text.push_str("use std::collections::BTreeMap;\n\n");
    }
    if uses(": Bytes") {
        text.push_str("use bytes::Bytes;\n");
    }
    let types = listed(&[
        ("Secret ", "Secret"),
        ("Secret>", "Secret"),
        ("Timestamp ", "Timestamp"),
    ]);
    if !types.is_empty() {
        let _ = writeln!(text, "use sortie_types::{{{types}}};\n");
    }
    let schema = listed(&[
        (" BLOB;", "BLOB"),
        (" BOOLEAN;", "BOOLEAN"),
        (" DOUBLE;", "DOUBLE"),
        ("&INTEGER", "INTEGER"),
        (" INTEGER;", "INTEGER"),
        (" LONG;", "LONG"),
        (" STRING;", "STRING"),
        ("&STRING", "STRING"),
        (" TIMESTAMP;", "TIMESTAMP"),
        ("= blob()", "blob"),
        ("= enumeration::", "enumeration"),
        ("= integer()", "integer"),
        ("= list(", "list"),
        ("= long()", "long"),
        ("= map(", "map"),
        ("= secret()", "secret"),
        ("= structure::", "structure"),
        ("= text()", "text"),
    ]);
    let schema: BTreeSet<&str> = schema.split(", ").filter(|name| !name.is_empty()).collect();
    let schema: Vec<&str> = schema.into_iter().collect();
    let macros = listed(&[
        ("errors! {", "errors"),
        ("kinds! {", "kinds"),
        ("operations! {", "operations"),
        ("shape! {", "shape"),
        ("string_enum! {", "string_enum"),
    ]);
    let empty = if uses("(Empty)") || uses("-> Empty ") {
        "Empty, "
    } else {
        ""
    };
    let _ = writeln!(
        text,
        "use crate::{{{empty}schema::{{{}}}, shape::{{{macros}}}}};\n",
        schema.join(", ")
    );
    text
}

/// The kind that the schema module has for a shape without constraints.
fn plain_kind(shape: &Value, name: &str) -> Option<&'static str> {
    let constrained = ["min", "max", "pattern", "enum"]
        .iter()
        .any(|key| !shape[*key].is_null());
    match shape["type"].as_str() {
        Some("timestamp") => Some("TIMESTAMP"),
        Some("boolean") => Some("BOOLEAN"),
        Some("float" | "double") => Some("DOUBLE"),
        _ if constrained || is_secret(shape, name) => None,
        Some("string") => Some("STRING"),
        Some("integer") => Some("INTEGER"),
        Some("long") => Some("LONG"),
        Some("blob") => Some("BLOB"),
        _ => None,
    }
}

fn is_secret(shape: &Value, name: &str) -> bool {
    shape["type"] == "string" && (shape["sensitive"] == true || SECRET_SHAPES.contains(&name))
}

fn constraints(shape: &Value) -> Result<String> {
    let mut text = String::new();
    let (min, max) = (shape["min"].as_i64(), shape["max"].as_i64());
    let numeric = matches!(shape["type"].as_str(), Some("integer" | "long"));
    match (min, max) {
        (None, None) => {}
        _ if numeric => {
            let (least, most) = if shape["type"] == "integer" {
                ("i32::MIN as i64", "i32::MAX as i64")
            } else {
                ("i64::MIN", "i64::MAX")
            };
            let show = |bound: Option<i64>, open: &str| {
                bound.map_or_else(|| open.to_owned(), |n| n.to_string())
            };
            write!(text, ".range({}, {})", show(min, least), show(max, most))?;
        }
        (min, max) => {
            let max = max.map_or_else(|| "usize::MAX".to_owned(), |n| n.to_string());
            write!(text, ".length({}, {max})", min.unwrap_or(0))?;
        }
    }
    if let Some(pattern) = shape["pattern"].as_str() {
        text.push_str(&pattern_call(pattern)?);
    }
    Ok(text)
}

fn pattern_call(shown: &str) -> Result<String> {
    let (compiled, unicode) = translate(shown);
    // The same wrapping as when it is used.
    regex_lite::Regex::new(&format!("^(?:{compiled})$")).with_context(|| {
        format!("pattern {shown:?} needs a line in PATTERNS: {compiled:?} does not compile")
    })?;
    Ok(match (compiled == shown, unicode) {
        (true, _) => format!(".pattern({})", raw(shown)),
        (false, false) => format!(".pattern_as({}, {})", raw(shown), raw(&compiled)),
        (false, true) => format!(".pattern_unicode({}, {})", raw(shown), raw(&compiled)),
    })
}

/// A model's pattern in our dialect, and whether it names Unicode classes.
fn translate(shown: &str) -> (String, bool) {
    if let Some((_, compiled)) = PATTERNS.iter().find(|(model, _)| *model == shown) {
        return ((*compiled).to_owned(), false);
    }
    let mut compiled = shown.to_owned();
    for (class, ascii) in [(r"\p{L}", "a-zA-Z"), (r"\p{N}", "0-9"), (r"\p{Z}", " ")] {
        compiled = compiled.replace(class, ascii);
    }
    let unicode = compiled != shown;
    (compiled, unicode)
}

fn raw(text: &str) -> String {
    let hashes = if text.contains('"') { "#" } else { "" };
    format!("r{hashes}\"{text}\"{hashes}")
}

fn members(shape: &Value) -> impl Iterator<Item = (&String, &Value)> {
    shape["members"].as_object().into_iter().flatten()
}

fn members_of(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn is_required(shape: &Value, member: &str) -> bool {
    members_of(&shape["required"]).any(|name| name == member)
}

fn target(member: &Value) -> Result<&str> {
    member["shape"].as_str().context("a member without shape")
}

/// The shapes right inside a shape.
fn targets(shape: &Value) -> Vec<&str> {
    let direct = ["member", "key", "value"]
        .into_iter()
        .map(|side| &shape[side]);
    members(shape)
        .map(|(_, member)| member)
        .chain(direct)
        .filter_map(|member| member["shape"].as_str())
        .collect()
}

/// `IPAddress` → `ip_address`, `valueSet` → `value_set`.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (index, &letter) in letters.iter().enumerate() {
        if !letter.is_ascii_alphanumeric() {
            if !text.ends_with('_') && !text.is_empty() {
                text.push('_');
            }
            continue;
        }
        let before = index.checked_sub(1).map(|at| letters[at]);
        let after = letters.get(index + 1);
        let starts_word = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            });
        if starts_word {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn field(name: &str) -> String {
    let name = snake(name);
    match name.as_str() {
        "type" | "match" | "use" | "where" | "ref" | "static" | "move" | "loop" | "impl" => {
            format!("r#{name}")
        }
        _ => name,
    }
}

fn constant(value: &str) -> String {
    let name = snake(value).to_uppercase();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        format!("V{name}")
    } else {
        name
    }
}

fn camel(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(letters)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rust() {
        for (model, ours) in [
            ("IPAddress", "ip_address"),
            ("valueSet", "value_set"),
            ("S3OutputUrl", "s3_output_url"),
            ("SSMConnectionChannel", "ssm_connection_channel"),
            ("AWS::EC2::Instance", "aws_ec2_instance"),
            ("notconnected", "notconnected"),
        ] {
            assert_eq!(snake(model), ours);
        }
        assert_eq!(field("Type"), "r#type");
        assert_eq!(constant("2.0"), "V2_0");
    }

    #[test]
    fn the_checked_in_shapes_are_what_the_models_give() {
        let models = match install_models(root().expect("the workspace has a root")) {
            Ok(models) => models,
            Err(error) if std::env::var("SORTIE_REQUIRE_PEERS").as_deref() != Ok("1") => {
                // Past the capture of the test's output, so that a skip is seen.
                let _ = writeln!(std::io::stderr(), "SKIPPED: no models: {error:#}");
                return;
            }
            Err(error) => panic!("no models: {error:#}"),
        };
        run(&Options {
            check: true,
            models: Some(models),
        })
        .expect("the shapes are current");
    }

    #[test]
    fn a_changed_model_changes_the_shapes() {
        let module = MODULES
            .iter()
            .find(|module| module.name == "node")
            .expect("it is listed");
        let root = root().expect("the workspace has a root");
        let mut model = read_model(root, Path::new(""), &module.model).expect("it is readable");
        let before = generate(module, &model).expect("it is generated");
        model["shapes"]["Fingerprint"]["max"] = 255.into();
        let after = generate(module, &model).expect("it is generated");
        assert_ne!(before, after);
        model["shapes"]["Fingerprint"]["pattern"] = "^(?<!x)$".into();
        assert!(generate(module, &model).is_err());
    }

    #[test]
    fn a_pattern_that_does_not_compile_stops_the_generation() {
        assert!(pattern_call(r"^(?!x).*").is_err());
        assert!(pattern_call(r"^\p{M}$").is_err());
        assert!(
            pattern_call(r"^[\p{L}\p{Z}]*$").is_ok_and(|call| call.starts_with(".pattern_unicode"))
        );
    }
}
