//! Arguments of `convergio runs`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::page_limit::parse_page_limit;
use crate::cli::steer::SteerCommand;

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Lists runs, the newest first: those that are within no other, unless asked.
    #[command(after_help = "Example:\n  convergio runs list --status running\n  \
        convergio runs list --parent 0190...")]
    List {
        /// Only in this status.
        #[arg(long, value_parser = ["running", "paused", "completed", "failed", "cancelled"])]
        status: Option<String>,
        /// Only runs right within this one.
        #[arg(long, value_name = "RUN", conflicts_with = "all")]
        parent: Option<String>,
        /// Also runs that are within others.
        #[arg(long)]
        all: bool,
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = parse_page_limit)]
        limit: u16,
    },
    /// Shows a run with its steps and output.
    #[command(after_help = "Example:\n  convergio runs show 0190...")]
    Show {
        /// The run.
        id: String,
    },
    /// Prints the events of a run as JSON lines.
    #[command(after_help = "Example:\n  convergio runs events 0190... --payloads")]
    Events {
        /// The run.
        id: String,
        /// Only after this sequence number.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Also the contents of payloads.
        #[arg(long)]
        payloads: bool,
    },
    /// Follows a run until its end.
    #[command(after_help = "Example:\n  convergio runs tail 0190...")]
    Tail {
        /// The run.
        id: String,
    },
    #[command(flatten)]
    Steer(SteerCommand),
    /// Writes a run to a file: its graph versions, records with their hashes, and payloads.
    #[command(after_help = "Example:\n  convergio runs export 0190... -o run.jsonl\n  \
        convergio runs export 0190... --without-payloads > run.jsonl")]
    Export {
        /// The run.
        id: String,
        /// The file; standard output when absent.
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// Leaves out what people wrote and models answered.
        #[arg(long)]
        without_payloads: bool,
    },
    /// Puts an exported run into the data folder, under its own id. It is history there: it is
    /// shown, replayed and forked, and never goes on.
    #[command(after_help = "Example:\n  convergio runs import run.jsonl --data ./look\n  \
        convergio runs import run.jsonl --signer 5e884898da28047151d0e56f8dc62927")]
    Import {
        /// The file.
        file: PathBuf,
        /// Only if this key signed it: the fingerprint that `convergio doctor` shows where it was
        /// exported.
        #[arg(long, value_name = "FINGERPRINT", value_parser = parse_fingerprint)]
        signer: Option<String>,
    },
    /// Moves a run under way to another version of its graph.
    #[command(after_help = "Example:\n  convergio runs migrate 0190... --graph changed.yaml\n  \
        convergio runs migrate 0190... --version 5f1c...")]
    Migrate {
        /// The run.
        id: String,
        /// A manifest of the graph's name; it is registered.
        #[arg(long, conflicts_with = "version", required_unless_present = "version")]
        graph: Option<PathBuf>,
        /// A registered version.
        #[arg(long)]
        version: Option<String>,
    },
    /// Steps through the events of a run: graph, states, prompts and cost.
    #[command(after_help = "Keys are shown at the bottom of the screen.\n\nExample:\n  convergio \
        runs debug 0190...\n  convergio runs debug --file run.jsonl --json")]
    Debug {
        /// The run.
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        id: Option<String>,
        /// The file of a run, in place of a run of the log.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Cancels a run.
    #[command(after_help = "Example:\n  convergio runs cancel 0190... --reason \"wrong document\"")]
    Cancel {
        /// The run.
        id: String,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Parses the fingerprint of a signing key: 32 lower-case hexadecimal digits.
fn parse_fingerprint(text: &str) -> Result<String, String> {
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    match text.len() == 32 && text.chars().all(is_digit) {
        true => Ok(text.to_owned()),
        false => Err("a fingerprint is 32 hexadecimal digits: `convergio doctor` shows it".into()),
    }
}
