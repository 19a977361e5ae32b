//! Arguments of the commands of `convergio runs` that steer a run.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Commands of `convergio runs` that steer a run.
#[derive(Debug, Subcommand)]
pub(crate) enum SteerCommand {
    /// Pauses a run: no further step starts, those under way finish.
    #[command(after_help = "Example:\n  convergio runs pause 0190... --reason \"wrong source\"")]
    Pause {
        /// The run.
        id: String,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Lets a paused run go on.
    #[command(after_help = "Example:\n  convergio runs resume 0190...")]
    Resume {
        /// The run.
        id: String,
    },
    /// Tells a run of an outside event that a `signal` node waits for.
    #[command(
        after_help = "Example:\n  convergio runs signal 0190... payment --payload '{\"eur\": 5}'"
    )]
    Signal {
        /// The run.
        id: String,
        /// The event's name, as `payment.settled`: letters, digits, `_`, `-`, `.`, `:` and `/`.
        name: String,
        /// What it carries: JSON if it can be read as such, else text.
        #[arg(long)]
        payload: Option<String>,
        /// The same key counts once.
        #[arg(long)]
        idempotency_key: Option<String>,
    },
    /// Lets a failed run go on from its failed steps; what is done is not done again.
    #[command(after_help = "Example:\n  convergio runs retry 0190... --step summary")]
    Retry {
        /// The run.
        id: String,
        /// The failed step that you mean.
        #[arg(long)]
        step: Option<String>,
    },
    /// Gives a run other limits or a corrected graph; one that failed goes on with all it did.
    #[command(
        after_help = "Example:\n  convergio runs amend 0190... --tokens 500000 --wall 2h\n  \
        convergio runs amend 0190... --graph corrected.yaml"
    )]
    Amend(AmendArgs),
    /// Decides about a step of unknown outcome, or about a failed one that asks.
    #[command(after_help = "Example:\n  convergio runs resolve 0190... summary --as retry\n  \
        convergio runs resolve 0190... pay --as completed --output '\"receipt 7\"'")]
    Resolve(ResolveArgs),
    /// Begins a new run with the history of another one up to an event.
    #[command(after_help = "Example:\n  convergio runs fork 0190... --at 12 --model local\n  \
        convergio runs fork 0190... --at 12 --node summary --prompt \"Shorter: {{ inputs.doc }}\"")]
    Fork(ForkArgs),
    /// Compares two runs: steps, outputs, tokens and cost.
    #[command(after_help = "Example:\n  convergio runs diff 0190... 0191... --contents")]
    Diff {
        /// The one.
        a: String,
        /// The other.
        b: String,
        /// Also what differs in the outputs.
        #[arg(long)]
        contents: bool,
    },
    /// Shows a run as it was after one of its events.
    #[command(after_help = "Example:\n  convergio runs state 0190... --at 12")]
    State {
        /// The run.
        id: String,
        /// The event; the last one when absent.
        #[arg(long)]
        at: Option<u64>,
    },
    /// Looks at the states that are kept beside the log, and drops them.
    #[command(subcommand)]
    Checkpoints(CheckpointsCommand),
}

#[derive(Debug, Args)]
pub(crate) struct AmendArgs {
    /// The run.
    pub(crate) id: String,
    /// Most tokens in all, those used before included.
    #[arg(long)]
    pub(crate) tokens: Option<u64>,
    /// Most money in all, as 0.50.
    #[arg(long)]
    pub(crate) cost: Option<String>,
    /// Longest time of work in all, as 2h.
    #[arg(long)]
    pub(crate) wall: Option<String>,
    /// Longest time from creation to end, as 30d.
    #[arg(long)]
    pub(crate) deadline: Option<String>,
    /// A corrected manifest of the graph's name; it is registered.
    #[arg(long, conflicts_with = "version")]
    pub(crate) graph: Option<PathBuf>,
    /// A registered version.
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Why.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// The same key counts once.
    #[arg(long)]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The run.
    pub(crate) id: String,
    /// The step.
    pub(crate) step: String,
    /// What becomes of it.
    #[arg(long = "as", value_enum)]
    pub(crate) decision: StepResolution,
    /// What it yielded, with `--as completed`: JSON if it can be read as such, else text.
    #[arg(long)]
    pub(crate) output: Option<String>,
    /// Why.
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

/// Decision about a step, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepResolution {
    /// It counts as done.
    Completed,
    /// It has failed for good.
    Failed,
    /// Another try.
    Retry,
    /// The run goes on without it.
    Skip,
}

#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// The run.
    pub(crate) id: String,
    /// The last event that counts; the last one of the run when absent.
    #[arg(long)]
    pub(crate) at: Option<u64>,
    /// Another model: for every agent, or with --node for that one.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// An input that is to be another one: NAME=VALUE, VALUE being JSON or text.
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub(crate) inputs: Vec<String>,
    /// Another manifest.
    #[arg(long)]
    pub(crate) graph: Option<PathBuf>,
    /// The node that does something otherwise.
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Its prompt.
    #[arg(long, requires = "node")]
    pub(crate) prompt: Option<String>,
    /// Its system prompt.
    #[arg(long, requires = "node")]
    pub(crate) system: Option<String>,
    /// The same key, the same fork.
    #[arg(long)]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointsCommand {
    /// Lists the events at which a run's state is kept.
    #[command(after_help = "Example:\n  convergio runs checkpoints list 0190...")]
    List {
        /// The run.
        id: String,
    },
    /// Marks this point of a run, and keeps its state.
    #[command(after_help = "Example:\n  convergio runs checkpoints save 0190... --label good")]
    Save {
        /// The run.
        id: String,
        /// What the mark is for.
        #[arg(long)]
        label: Option<String>,
    },
    /// Drops kept states, of one run or all. Nothing changes but the time that loading takes.
    #[command(after_help = "Example:\n  convergio runs checkpoints drop")]
    Drop {
        /// The run; all when absent.
        id: Option<String>,
        /// The runs' owner.
        #[arg(long, default_value = "default")]
        tenant: String,
    },
}
