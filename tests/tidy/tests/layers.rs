//! The direction of dependencies, kept by reading `cargo metadata`. ARCHITECTURE.md draws it; this
//! table is the rule.

#![expect(
    clippy::expect_used,
    reason = "a rule that cannot be looked at must fail the test"
)]

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// Crate, the crates of ours it may use, and why the line is where it is.
const ALLOWED: &[(&str, &[&str], &str)] = &[
    ("types", &[], "the base knows nothing above it"),
    ("wire", &["types"], "codecs and signatures are pure"),
    ("channel", &["types"], "the protocol is a value, without IO"),
    (
        "copy",
        &["channel"],
        "files and a stream, whoever carries it",
    ),
    (
        "evidence",
        &["types"],
        "what an outsider checks must need no server",
    ),
    ("iam", &["types"], "who may do what is decided without IO"),
    ("ports", &["types", "evidence"], "traits know no engine"),
    (
        "store",
        &["types", "evidence", "ports"],
        "an adapter holds no rules",
    ),
    (
        "control",
        &["types", "iam", "evidence", "ports"],
        "use-cases know no HTTP and no wire types",
    ),
    (
        "gateway",
        &["types", "channel", "evidence", "ports", "control"],
        "live channels know no routes",
    ),
    (
        "doors",
        &["types", "wire", "evidence", "control", "gateway"],
        "doors convert; they decide nothing and store nothing",
    ),
    (
        "server",
        &[
            "types", "wire", "evidence", "ports", "store", "control", "gateway", "doors", "agent",
        ],
        "only the program names adapters; the agent is for `dev` alone",
    ),
    (
        "agent",
        &["types", "wire", "channel", "copy"],
        "a node never carries server code",
    ),
    (
        "client",
        &["types", "wire", "channel"],
        "a client never carries server code",
    ),
    (
        "cli",
        &["types", "wire", "channel", "copy", "client"],
        "a client never carries server code",
    ),
];

/// Crates that must stay free of IO, and what would bring it in.
const PURE: &[&str] = &["types", "wire", "channel", "evidence", "iam"];
const IMPURE: &[&str] = &[
    "tokio", "hyper", "axum", "reqwest", "sqlx", "socket2", "rustix", "mio",
];

/// Crates that must not be in any program: a second or third cryptography, and C we do not want.
const BANNED: &[(&str, &str)] = &[
    ("ring", "cryptography is aws-lc-rs throughout"),
    ("openssl", "cryptography is aws-lc-rs throughout"),
    ("openssl-sys", "cryptography is aws-lc-rs throughout"),
    ("native-tls", "TLS is rustls"),
];

/// Licences that may be linked, each by the name that packages use.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "CC0-1.0",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
    "BSL-1.0",
    "MIT-0",
    "OpenSSL",
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
        ])
        .arg("x86_64-unknown-linux-gnu")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn packages(metadata: &Value) -> &Vec<Value> {
    metadata["packages"].as_array().expect("packages")
}

/// Normal and build dependencies by name; tests may use what they like.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    let list = package["dependencies"].as_array().expect("dependencies");
    list.iter()
        .filter(|dep| dep["kind"] != "dev")
        .filter_map(|dep| dep["name"].as_str())
        .collect()
}

#[test]
fn crates_depend_downwards_only() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in packages(&metadata) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(name) = name.strip_prefix("sortie-") else {
            continue;
        };
        let Some((_, allowed, why)) = ALLOWED.iter().find(|(known, ..)| *known == name) else {
            // Test crates may use anything, and nothing may use them.
            assert!(
                ["benches", "testkit", "e2e", "conformance", "tidy"].contains(&name),
                "crate `{name}` has no line in the table of layers"
            );
            continue;
        };
        for dependency in dependencies(package) {
            if let Some(dependency) = dependency.strip_prefix("sortie-")
                && !allowed.contains(&dependency)
            {
                wrong.push(format!("`{name}` must not use `{dependency}`: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_bring_no_io() {
    let metadata = metadata();
    for package in packages(&metadata) {
        let name = package["name"].as_str().unwrap_or_default();
        if !PURE.iter().any(|pure| name == format!("sortie-{pure}")) {
            continue;
        }
        let dependencies = dependencies(package);
        for impure in IMPURE {
            assert!(
                !dependencies.contains(impure),
                "`{name}` is pure and must not use `{impure}`"
            );
        }
    }
}

#[test]
fn no_banned_crate_is_linked() {
    // `cargo metadata` also counts features that only other systems switch on; the tree does not.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--edges", "normal,build"])
        .args([
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--target",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let linked: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(linked.contains("aws-lc-rs"), "the tree is read wrongly");
    for (banned, why) in BANNED {
        assert!(!linked.contains(banned), "`{banned}` came in: {why}");
    }
}

#[test]
fn licences_are_permissive() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in packages(&metadata) {
        let licence = package["license"].as_str().unwrap_or_default();
        if !permissive(licence) {
            wrong.push(format!("{}: `{licence}`", package["name"]));
        }
    }
    assert!(
        wrong.is_empty(),
        "licences nobody agreed to:\n{}",
        wrong.join("\n")
    );
}

/// Whether an SPDX expression can be met with permissive licences: every AND part needs one
/// permissive OR part. Brackets in crate metadata only ever group ORs.
fn permissive(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    !flat.is_empty()
        && flat.split(" AND ").all(|part| {
            part.split(" OR ")
                .any(|licence| LICENCES.contains(&licence.trim()))
        })
}

#[test]
fn a_strange_licence_would_be_seen() {
    assert!(permissive("MIT OR GPL-3.0"));
    assert!(permissive("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!permissive("MIT AND GPL-3.0"));
    assert!(!permissive("AGPL-3.0"));
    assert!(!permissive(""));
}
