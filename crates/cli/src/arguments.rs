//! The command line of `sortie`, as data.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sortie_client::Overrides;

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
        }
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
    /// List, show and end sessions
    #[command(subcommand)]
    Sessions(Sessions),
    /// Show who the server takes you for
    Whoami(Whoami),
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
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
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
}
