//! Arguments of the command line. Doc comments of arguments are the help text.
//!
//! One file for each command with arguments of its own; what all commands share is here. Options
//! that configure a server stand in `convergio_server::config`. Nothing is executed here:
//! `commands` matches on [`CliCommand`].

pub(crate) mod agents;
mod models;
mod page_limit;
mod runs;
pub(crate) mod steer;
mod tokens;
mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use convergio_bench::BenchCommand;
use convergio_crash_test::CrashMoment;
use convergio_server::config::{
    DoorOptions, EvaluationLimits, ListenOptions, LogOptions, ModelCallLimits, ReadModelOptions,
    ServerRole,
};
use convergio_server::telemetry::Telemetry;

use agents::AgentsCommand;
pub(crate) use models::ModelsCommand;
use page_limit::parse_page_limit;
pub(crate) use runs::RunsCommand;
pub(crate) use tokens::TokensCommand;
pub(crate) use worker::WorkerArgs;

/// Runs graphs of AI agents on a durable log.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 done · 1 the run failed · 2 bad input · \
    3 no server · 4 detached or waiting for a person\n\nExamples:\n  convergio serve\n  \
    convergio graph run examples/brief.yaml --input-file doc=document.md\n  convergio runs list"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalOptions {
    /// Data folder (default: ./.convergio if it is there and trusted, else
    /// ~/.local/share/convergio).
    ///
    /// To name a folder is to trust it.
    #[arg(long, global = true, env = "CONVERGIO_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// URL of a running server, in place of the data folder's.
    #[arg(long, global = true, env = "CONVERGIO_URL")]
    pub(crate) server: Option<String>,
    /// File with the token to sign in with. For the server that CONVERGIO_URL names, the token may
    /// stand in CONVERGIO_TOKEN too.
    #[arg(long, global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// The token itself. Others see it in the list of processes: use --token-file.
    #[arg(long, global = true, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// URL of a model server with OpenAI's chat completions; may be given several times.
    #[arg(long = "model-url", global = true, env = "CONVERGIO_MODEL_URL", value_delimiter = ',')]
    pub(crate) model_urls: Vec<String>,
    #[command(flatten)]
    pub(crate) read_models: ReadModelOptions,
    /// JSON in place of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// What is said on standard error: error, warn, info, debug.
    #[arg(long, global = true, env = "CONVERGIO_LOG", default_value = "error")]
    log_level: String,
}

impl Cli {
    /// Starts logging and tracing. The returned value flushes traces when it is dropped, so it must
    /// live until the process ends.
    pub(crate) fn init_telemetry(&self) -> Telemetry {
        Telemetry::start_telemetry(&self.global.log_level)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Starts a server: gateway, executor and projections in one process.
    #[command(after_help = "Example:\n  convergio serve --listen 127.0.0.1:7420 --data ./data\n  \
        convergio serve --role executor --data ./e1 --log tls://a,b,c --log-creds ./log.creds")]
    Serve(ServeArgs),
    /// Checks and runs graphs.
    #[command(subcommand)]
    Graph(GraphCommand),
    /// Defines and runs agents.
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Looks at runs, and steers them.
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Computes a run again from its log, without any effect, and names the first difference.
    #[command(after_help = "Exit code 1 when something differs.\n\nExample:\n  convergio replay \
        0190... --at 12\n  convergio replay 0190... --graph changed.yaml --json\n  convergio \
        replay --file run.jsonl\n  convergio replay --fleet --graph changed.yaml")]
    Replay(ReplayArgs),
    /// Answers what runs ask.
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// Shows what was spent.
    #[command(after_help = "Example:\n  convergio ledger --json")]
    Ledger(RunListArgs),
    /// Shows the lines of usage.
    #[command(after_help = "Example:\n  convergio usage --run 0190...")]
    Usage(RunListArgs),
    /// Shows who did what.
    #[command(after_help = "Example:\n  convergio audit --run 0190... --limit 20")]
    Audit(RunListArgs),
    /// Lists, fetches and removes models.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Shows, adds and forgets what agents remember.
    #[command(subcommand)]
    Memory(MemoryCommand),
    /// Trusts a data folder that is found by standing beside it, as it is now.
    #[command(after_help = "Example:\n  convergio trust\n  convergio trust ./project/.convergio")]
    Trust {
        /// The folder.
        #[arg(default_value = ".convergio")]
        folder: PathBuf,
    },
    /// Gives people tokens and roles, to answer what runs ask.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Builds read models anew.
    #[command(subcommand)]
    Projections(ProjectionsCommand),
    /// Makes, checks, archives and restores the log.
    #[command(subcommand)]
    Log(LogCommand),
    /// Kills the engine everywhere in a run of a graph, and tells what is repeated or lost.
    #[command(after_help = "Exit code 1 when something is. Questions are granted, waits are \
        shortened.\n\nExample:\n  convergio crash-test examples/small.yaml --input text=hello\n  \
        convergio crash-test examples/brief.yaml --input-file doc=document.md --sample 6")]
    CrashTest(CrashTestArgs),
    /// One life of a crash test: stands still where it is to be killed.
    #[command(hide = true)]
    CrashTestLife(CrashPointArgs),
    /// Evaluates what strangers wrote, for the server that started it.
    #[command(hide = true)]
    EvaluationWorker(WorkerArgs),
    /// Checks that everything is in place.
    #[command(after_help = "Example:\n  convergio doctor --json")]
    Doctor,
    /// Measures.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Runs the example brief on a local model, and shows everything that came of it.
    #[command(after_help = "Example:\n  convergio demo --exit")]
    Demo(DemoArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) listen: ListenOptions,
    /// End when no run is under way any more.
    #[arg(long)]
    pub(crate) until_idle: bool,
    /// What this process does. Roles apart need a log in a cluster.
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) role: ServerRole,
    #[command(flatten)]
    pub(crate) model_calls: ModelCallLimits,
    #[command(flatten)]
    pub(crate) doors: DoorOptions,
    #[command(flatten)]
    pub(crate) evaluation: EvaluationLimits,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReplayArgs {
    /// The run.
    #[arg(required_unless_present_any = ["file", "fleet"])]
    pub(crate) run: Option<String>,
    /// The file of a run, as `runs export` writes it, in place of a run of the log.
    #[arg(long, conflicts_with_all = ["run", "fleet"])]
    pub(crate) file: Option<PathBuf>,
    /// All runs under way: could they go on by `--graph`, or do they still mean the same?
    #[arg(long, conflicts_with_all = ["run", "at"])]
    pub(crate) fleet: bool,
    /// The last event to be computed again: shows the state as it was then.
    #[arg(long)]
    pub(crate) at: Option<u64>,
    /// A manifest in place of the run's own graph version: what would it have decided?
    #[arg(long)]
    pub(crate) graph: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CrashTestArgs {
    /// The manifest, YAML or JSON.
    pub(crate) file: PathBuf,
    /// An input as NAME=VALUE; VALUE is JSON if it can be read as such, else text.
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub(crate) inputs: Vec<String>,
    /// An input whose text is a file's.
    #[arg(long = "input-file", value_name = "NAME=PATH")]
    pub(crate) input_files: Vec<String>,
    /// Boundaries tried, spread over the run; all when absent.
    #[arg(long)]
    pub(crate) sample: Option<usize>,
    /// Boundaries at which a process is killed besides.
    #[arg(long, default_value_t = 4)]
    pub(crate) kills: usize,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CrashPointArgs {
    /// The commit at which it stands still.
    #[arg(long)]
    pub(crate) commit: u64,
    /// Before, in or after the append.
    #[arg(long, value_enum)]
    pub(crate) moment: CrashMoment,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GraphCommand {
    /// Checks manifests without a server; names every mistake.
    #[command(after_help = "Example:\n  convergio graph validate examples/brief.yaml")]
    Validate {
        /// Manifests, YAML or JSON.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Runs a graph and shows its steps as they happen. Ctrl-C detaches; the run goes on.
    #[command(after_help = "Example:\n  convergio graph run examples/brief.yaml --input-file \
        doc=document.md\n  convergio graph run examples/small.yaml --input text=hello --json")]
    Run(RunArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// The manifest, YAML or JSON.
    pub(crate) file: PathBuf,
    /// An input as NAME=VALUE; VALUE is JSON if it can be read as such, else text.
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub(crate) inputs: Vec<String>,
    /// An input whose text is a file's.
    #[arg(long = "input-file", value_name = "NAME=PATH")]
    pub(crate) input_files: Vec<String>,
    /// The same key, the same run.
    #[arg(long)]
    pub(crate) idempotency_key: Option<String>,
    /// `local`: nothing of this run leaves the machines of the person or the operator.
    #[arg(long, value_parser = ["any", "local"])]
    pub(crate) privacy: Option<String>,
    /// Start it and leave.
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Lists open questions.
    #[command(after_help = "Example:\n  convergio approvals list")]
    List,
    /// Shows a question with what is to be approved.
    #[command(after_help = "Example:\n  convergio approvals show 0190...")]
    Show {
        /// The question.
        id: String,
    },
    /// Answers a question.
    #[command(after_help = "Example:\n  convergio approvals answer 0190... --grant --reason ok")]
    Answer {
        /// The question.
        id: String,
        /// Yes.
        #[arg(long, conflicts_with = "deny", required_unless_present = "deny")]
        grant: bool,
        /// No.
        #[arg(long)]
        deny: bool,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunListArgs {
    /// Only of this run.
    #[arg(long)]
    pub(crate) run: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 50, value_parser = parse_page_limit)]
    pub(crate) limit: u16,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MemoryCommand {
    /// Lists what is remembered of a subject, the newest first.
    #[command(after_help = "Example:\n  convergio memory list --subject student:42 --json")]
    List {
        /// Whom or what it is about.
        #[arg(long)]
        subject: String,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = parse_page_limit)]
        limit: u16,
    },
    /// Shows what fits a question best, as an agent would get it.
    #[command(
        after_help = "Example:\n  convergio memory recall --subject student:42 \"fractions\""
    )]
    Recall {
        /// Whom or what it is about.
        #[arg(long)]
        subject: String,
        /// The question.
        query: String,
        /// Tokens that all of them take together, at most.
        #[arg(long, default_value_t = 1000)]
        tokens: u32,
    },
    /// Remembers a text; prints its id.
    #[command(
        after_help = "Example:\n  convergio memory store --subject student:42 \"likes maps\""
    )]
    Store {
        /// Whom or what it is about.
        #[arg(long)]
        subject: String,
        /// What is to be remembered.
        text: String,
        /// From 0 to 1000.
        #[arg(long)]
        importance: Option<u16>,
    },
    /// Forgets a memory and erases its text.
    #[command(after_help = "Example:\n  convergio memory forget --subject student:42 0190...")]
    Forget {
        /// Whom or what it is about.
        #[arg(long)]
        subject: String,
        /// The memory.
        id: String,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ProjectionsCommand {
    /// Folds the whole log into fresh read models.
    #[command(after_help = "Example:\n  convergio projections rebuild")]
    Rebuild,
    /// Compares the read models with a rebuild, byte for byte.
    #[command(after_help = "Example:\n  convergio projections check")]
    Check,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum LogCommand {
    /// Walks every hash chain from its first record.
    #[command(after_help = "Example:\n  convergio log verify --payloads\n  convergio log verify \
            --archive ./a")]
    Verify {
        /// An archive in place of the log.
        #[arg(long)]
        archive: Option<PathBuf>,
        /// Also open every payload and compare it with what the chain says of it.
        #[arg(long, conflicts_with = "archive")]
        payloads: bool,
    },
    /// Prints every record as its chain has it, one JSON line each: what anybody sees who reads the
    /// log without its key.
    #[command(after_help = "Example:\n  convergio log print | grep run.failed")]
    Print {
        /// Also what the payloads hold: what people wrote and models answered.
        #[arg(long)]
        payloads: bool,
    },
    /// Makes the streams of a new log in a cluster.
    #[command(
        after_help = "Example:\n  convergio log create --log tls://a,b,c --log-creds ./log.creds \
        --data ./data"
    )]
    Create(LogCreateArgs),
    /// Writes what an archive does not have yet: files from which the log can be made again.
    #[command(after_help = "Example:\n  convergio log export ./archive\n  convergio log export \
        ./one-run --stream run/0190...")]
    Export {
        /// The archive's folder.
        folder: PathBuf,
        /// Only this stream, into an empty folder: KIND/UUID, as run/0190..., graph/0190...
        #[arg(long)]
        stream: Option<String>,
        /// The stream's owner.
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Adds the streams of an archive to a log.
    #[command(after_help = "Example:\n  convergio log import ./archive --data ./data")]
    Import {
        /// The archive's folder.
        folder: PathBuf,
    },
    /// Makes an empty log into what the archive holds; goes on where it was interrupted.
    #[command(
        after_help = "Example:\n  convergio log restore ./archive --log tls://... --data ./d"
    )]
    Restore {
        /// The archive's folder.
        folder: PathBuf,
    },
    /// Copies the data folder's log, while a server uses it or not.
    #[command(after_help = "Example:\n  convergio log backup ./copy --data ./data")]
    Backup {
        /// A new data folder.
        to: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LogCreateArgs {
    /// Copies of each record on different servers.
    #[arg(long, default_value_t = 3)]
    pub(crate) replicas: usize,
    /// Most GiB of records; then appends are refused.
    #[arg(long, default_value_t = 64)]
    pub(crate) log_gib: u64,
    /// Most GiB of payloads.
    #[arg(long, default_value_t = 256)]
    pub(crate) payload_gib: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// The manifest.
    #[arg(long, default_value = "examples/brief.yaml")]
    pub(crate) graph: PathBuf,
    /// The document.
    #[arg(long, default_value = "examples/documents/constitution.md")]
    pub(crate) document: PathBuf,
    /// End after the run; otherwise the server stays.
    #[arg(long)]
    pub(crate) exit: bool,
}
