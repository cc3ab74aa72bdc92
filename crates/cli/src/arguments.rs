//! The command line of `sortie`, as data.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use sortie_client::Overrides;
use sortie_types::Secret;

use crate::{
    exec::Selector,
    forward::spec::{Place, Spec},
};

/// Shells on managed nodes, and what happened in them.
#[derive(Debug, Parser)]
#[command(name = "sortie", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the server; what is not given comes from the environment and the AWS files.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Profile of the AWS config and credentials files
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// Region to sign for [env: AWS_REGION]
    #[arg(long, global = true, value_name = "REGION")]
    region: Option<String>,
    /// URL of the server [env: AWS_ENDPOINT_URL]
    #[arg(long, global = true, value_name = "URL")]
    endpoint_url: Option<String>,
    /// PEM file with certificate authorities to trust besides the system's [env: AWS_CA_BUNDLE]
    #[arg(long, global = true, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
}

impl Connection {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            profile: self.profile.clone(),
            region: self.region.clone(),
            endpoint: self.endpoint_url.clone(),
            ca_bundle: self.ca_bundle.clone(),
            may_be_new: false,
        }
    }

    /// The same as arguments, for a program that calls this one.
    pub(crate) fn as_arguments(&self) -> Vec<OsString> {
        let texts = [
            ("--profile", &self.profile),
            ("--region", &self.region),
            ("--endpoint-url", &self.endpoint_url),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, value)| Some((name, OsString::from(value.as_ref()?))));
        let bundle = self
            .ca_bundle
            .as_ref()
            .map(|path| ("--ca-bundle", absolute(path).into_os_string()));
        texts
            .chain(bundle)
            .flat_map(|(name, value)| [OsString::from(name), value])
            .collect()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List nodes
    Nodes(Nodes),
    /// Open a shell on a node
    ///
    /// Typed at the start of a line, `~.` leaves and ends the session, `~?` lists the other escapes.
    /// When standard input is no terminal its bytes are typed as they are and its end is typed as
    /// Ctrl-D. The exit status is the remote shell's, or 255 when the session failed.
    Start(Start),
    /// Forward ports and unix sockets through a node
    ///
    /// A SPEC is a port (5432), two ports (8080:80, here and on the node), a port and where the node
    /// connects (5432:db.internal:5432), or begins with an address to listen at
    /// (127.0.0.2:8080:localhost:80). A part that begins with / or ./ is a unix socket, and an IPv6
    /// address is in brackets. Port 0 takes any that is free. It runs until Ctrl-C.
    Forward(Forward),
    /// Copy files to a node or from one, which needs no sshd
    ///
    /// NODE:PATH is a path on the node, from the session's home directory on when it does not begin
    /// with /; anything else is a path here, and - is standard input or output. A destination that is
    /// a directory takes the sources under their names. Every file is verified by its SHA-256 before
    /// it gets its name. The same command goes on where an interrupted one was. The exit status is 0,
    /// or 255 when anything was not copied, which standard error names.
    Cp(Cp),
    /// Run ssh over a session, on a node that needs no open port
    ///
    /// Everything behind the node is ssh's. `sortie ssh-config` makes ssh, scp, sftp, rsync and what is
    /// built on them work by themselves.
    Ssh(Ssh),
    /// Print what makes ssh, scp, sftp and rsync reach nodes by themselves
    SshConfig(SshConfig),
    /// Run a command on a node, or on many
    ///
    /// Standard input goes to the command until its end, standard output and standard error come back
    /// apart, and signals are passed on. The exit status is the command's, 128 and the number of the
    /// signal that killed it, or 255 when sortie itself failed, which it then says on standard error.
    ///
    /// With --on the command runs on every node that is meant, without standard input. Each line
    /// begins with the node's name. The exit status is the highest of all nodes, where a node on which
    /// the command could not be run counts as 255.
    Exec(Exec),
    /// List, show and end sessions
    #[command(subcommand)]
    Sessions(Sessions),
    /// Sign in with a password, and keep temporary keys in a profile
    ///
    /// Asks for the password, and for the code of the MFA device where the user has one. The keys go
    /// into the shared credentials file, where every AWS tool finds them.
    Login(Login),
    /// Take the keys of `sortie login` out of the profile
    Logout,
    /// Show who the server takes you for
    Whoami(Whoami),
    /// Say why something is allowed or refused
    ///
    /// The exit status is 0 when it is allowed and 1 when it is not.
    Explain(Explain),
    /// Be the session-manager-plugin of the AWS CLI
    #[command(subcommand)]
    Plugin(Plugin),
}

#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Only nodes whose id or name contains this
    pub(crate) text: Option<String>,
    /// Only nodes that are connected
    #[arg(long)]
    pub(crate) online: bool,
    /// Only nodes of this platform: linux, macos or windows
    #[arg(long, value_name = "PLATFORM", value_parser = ["linux", "macos", "windows"])]
    pub(crate) platform: Option<String>,
    /// Only nodes with this tag; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) tag: Vec<(String, String)>,
    /// Print JSON, in the service's own form
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Id or name of the node
    pub(crate) node: String,
    /// Session document, instead of the account's shell
    #[arg(long, value_name = "NAME")]
    pub(crate) document: Option<String>,
    /// Parameter of the document; a name that is given again has several values
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter, requires = "document")]
    pub(crate) parameter: Vec<(String, String)>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Forward {
    /// Id or name of the node
    pub(crate) node: String,
    /// What to forward: PORT, PORT:PORT, PORT:HOST:PORT, [BIND:]PORT:HOST:PORT, or unix sockets
    #[arg(value_name = "SPEC")]
    pub(crate) spec: Vec<Spec>,
    /// Be a SOCKS5 proxy here whose connections leave from the node; may be repeated
    #[arg(short = 'D', long = "socks", value_name = "[BIND:]PORT")]
    pub(crate) socks: Vec<Place>,
    /// Listen on the node and connect here: PORT:HOST:PORT, or unix sockets; may be repeated
    ///
    /// The node listens at loopback or a unix socket only.
    #[arg(short = 'R', long = "reverse", value_name = "SPEC")]
    pub(crate) reverse: Vec<Spec>,
    /// The address to listen at where a SPEC names none [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bind: Option<String>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Print a line of JSON for each listener on standard output once all are ready
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// What to copy, and where to: the last one is the destination
    #[arg(value_name = "SOURCE… DESTINATION", num_args = 2.., required = true)]
    pub(crate) paths: Vec<OsString>,
    /// Copy directories and what is in them; links in them stay links
    #[arg(short = 'r', short_alias = 'R', long)]
    pub(crate) recursive: bool,
    /// Keep modes and modification times
    #[arg(short = 'p', long)]
    pub(crate) preserve: bool,
    /// Show no progress
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
    /// Print the SHA-256 of each file on standard output, as sha256sum does
    #[arg(long, conflicts_with = "json")]
    pub(crate) checksum: bool,
    /// Print a line of JSON for each file, and one for all, on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ssh {
    /// Be ssh's ProxyCommand: standard input and output are the connection. ARGUMENTS is the port
    /// then, 22 when it is not given
    #[arg(long)]
    pub(crate) stdio: bool,
    /// Id or name of the node, and the user there
    #[arg(value_name = "[USER@]NODE")]
    pub(crate) node: String,
    /// Arguments for ssh: options, and a command to run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct SshConfig {
    /// Write it into ~/.ssh/config, in place of what was written there before
    #[arg(long)]
    pub(crate) write: bool,
    /// The file to write to instead
    #[arg(long, value_name = "FILE", requires = "write")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Id or name of the node
    #[arg(required_unless_present = "on", conflicts_with = "on")]
    pub(crate) node: Option<String>,
    /// Run on many nodes: all, tag:KEY=VALUE (several, with commas, must all fit), or the id or name
    /// of a node; may be repeated for more nodes
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) on: Vec<Selector>,
    /// How many nodes at a time
    #[arg(
        long, value_name = "N", default_value_t = 16, requires = "on",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub(crate) parallel: u16,
    /// Print a line of JSON for each node when it is done, with up to 1 MiB of each output
    #[arg(long, requires = "on")]
    pub(crate) json: bool,
    /// Give the command a terminal
    #[arg(short = 't', long, conflicts_with = "on")]
    pub(crate) tty: bool,
    /// Leave standard input alone
    #[arg(short = 'n', long, conflicts_with = "tty")]
    pub(crate) no_stdin: bool,
    /// Session document, instead of the one for commands
    #[arg(long, value_name = "NAME")]
    pub(crate) document: Option<String>,
    /// Parameter of the document; a name that is given again has several values
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter, requires = "document")]
    pub(crate) parameter: Vec<(String, String)>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// The command and its arguments, which reach it as they are
    #[arg(last = true, value_name = "CMD", required_unless_present = "document")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// List sessions, running ones unless told otherwise
    List(SessionsList),
    /// Show one session
    Show(OneSession),
    /// End a session
    Terminate(TerminateSession),
}

#[derive(Debug, Args)]
pub(crate) struct SessionsList {
    /// List ended sessions instead
    #[arg(long)]
    pub(crate) history: bool,
    /// Only sessions on this node (id or name)
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Only sessions of this principal (ARN)
    #[arg(long, value_name = "ARN")]
    pub(crate) owner: Option<String>,
    /// Print JSON, in the service's own form
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OneSession {
    /// Id of the session
    pub(crate) session_id: String,
    /// Print JSON, in the service's own form
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TerminateSession {
    /// Ids of the sessions
    #[arg(required = true)]
    pub(crate) session_id: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Name of the user; asked for when it is not given
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// How long the keys shall be good, such as 8h or 30m; 15m to 36h [default: 12h]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) duration: Option<i32>,
    /// Read the password from the first line of standard input instead of asking
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Code of the MFA device, for those who do not want to be asked
    #[arg(long, value_name = "CODE", value_parser = mfa_code)]
    pub(crate) mfa_code: Option<Secret>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The action, such as ssm:StartSession
    pub(crate) action: String,
    /// What it is done to: an ARN, the id or name of a node, or * for everything
    #[arg(default_value = "*")]
    pub(crate) resource: String,
    /// Explain it for this user (name) or principal (ARN) instead of yourself
    #[arg(long = "as", value_name = "USER")]
    pub(crate) principal: Option<String>,
    /// Suppose this value of a condition key; may be repeated, also for several values of one key
    #[arg(long, value_name = "KEY=VALUE", value_parser = condition)]
    pub(crate) context: Vec<(String, String)>,
    /// Print JSON, in the service's own form
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Whoami {
    /// Print JSON, in the service's own form
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// Put this program into a folder under the plugin's name
    Install(PluginInstall),
}

#[derive(Debug, Args)]
pub(crate) struct PluginInstall {
    /// The folder, which should come first in PATH; made when it does not exist
    pub(crate) folder: PathBuf,
    /// Copy the program instead of linking to it
    #[arg(long)]
    pub(crate) copy: bool,
    /// Replace a plugin that is not ours
    #[arg(long)]
    pub(crate) force: bool,
}

/// A path that means the same in any working directory.
fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// `8h`, `30m`, `900s` or `900` in seconds.
fn seconds(text: &str) -> Result<i32, &'static str> {
    let (number, unit) = match text.chars().last() {
        Some('h') => (text.strip_suffix('h'), 3600),
        Some('m') => (text.strip_suffix('m'), 60),
        Some('s') => (text.strip_suffix('s'), 1),
        _ => (Some(text), 1),
    };
    number
        .and_then(|number| number.parse::<i32>().ok()?.checked_mul(unit))
        .filter(|seconds| (900..=129_600).contains(seconds))
        .ok_or("a time is given like 8h or 30m, from 15m to 36h")
}

fn mfa_code(text: &str) -> Result<Secret, &'static str> {
    let is_code = text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_code
        .then(|| Secret::new(text))
        .ok_or("a code has six digits")
}

fn condition(text: &str) -> Result<(String, String), &'static str> {
    key_and_value(text).map_err(|_| "a condition key is given as KEY=VALUE")
}

fn parameter(text: &str) -> Result<(String, String), &'static str> {
    key_and_value(text).map_err(|_| "a parameter is given as NAME=VALUE")
}

fn key_and_value(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a tag is given as KEY=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_are_within_what_the_service_gives() {
        for (text, expected) in [
            ("900", Some(900)),
            ("15m", Some(900)),
            ("36h", Some(129_600)),
            ("37h", None),
            ("14m", None),
            ("", None),
            ("h", None),
            ("-1h", None),
            ("99999999999h", None),
            ("1.5h", None),
        ] {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn the_connection_is_given_before_or_after_the_command() {
        for line in [
            "sortie --region r-1 start node-1 --reason because",
            "sortie start --region r-1 --reason because node-1",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(
                arguments.connection.overrides().region.as_deref(),
                Some("r-1")
            );
            let Command::Start(start) = arguments.command else {
                panic!("not start");
            };
            assert_eq!(
                (start.node.as_str(), start.reason.as_deref()),
                ("node-1", Some("because"))
            );
        }
    }

    #[test]
    fn what_is_behind_the_node_is_for_ssh() {
        let line = "sortie ssh --profile work me@web -L 80:db:80 --reason -- uptime -p";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(
            arguments.connection.as_arguments(),
            ["--profile", "work"].map(OsString::from)
        );
        let Command::Ssh(ssh) = arguments.command else {
            panic!("not ssh");
        };
        assert_eq!((ssh.node.as_str(), ssh.stdio), ("me@web", false));
        assert_eq!(
            ssh.arguments,
            ["-L", "80:db:80", "--reason", "--", "uptime", "-p"].map(OsString::from)
        );
    }

    #[test]
    fn what_is_to_be_forwarded_may_come_in_any_number_and_order() {
        let line = "sortie forward web 5432 -D 1080 8080:80 -R 9000:localhost:3000 -D [::1]:1081";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Command::Forward(forward) = arguments.command else {
            panic!("not forward");
        };
        let numbers = (
            forward.spec.len(),
            forward.socks.len(),
            forward.reverse.len(),
        );
        assert_eq!(numbers, (2, 2, 1));
        let wrong = Arguments::try_parse_from(["sortie", "forward", "web", "80:"]).unwrap_err();
        assert!(wrong.to_string().contains("empty"), "{wrong}");
    }
}
