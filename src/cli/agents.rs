//! Arguments of `convergio agents`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::page_limit::parse_page_limit;

#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Defines an agent; the same name again changes it.
    #[command(after_help = "Example:\n  convergio agents create tutor --model local --system \
        \"You explain in short sentences.\" --tool math.eval\n  convergio agents create head \
        --tool '{\"agent\": \"tutor\"}' --tool agent.spawn --max-turns 8")]
    Create(Box<AgentCreateArgs>),
    /// Lists agents, those defined last first.
    #[command(after_help = "Example:\n  convergio agents list --json")]
    List {
        /// Also those that were terminated.
        #[arg(long)]
        all: bool,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = parse_page_limit)]
        limit: u16,
    },
    /// Shows an agent with its definition.
    #[command(after_help = "Example:\n  convergio agents show tutor")]
    Show {
        /// The agent, by its name or id.
        agent: String,
    },
    /// Says something to an agent and shows its answer. Ctrl-C detaches; the run goes on.
    #[command(after_help = "Example:\n  convergio agents run tutor \"What is 6 * 7?\"")]
    Run {
        /// The agent, by its name or id.
        agent: String,
        /// The message.
        message: String,
        /// The same key, the same run.
        #[arg(long)]
        idempotency_key: Option<String>,
        /// Start it and leave.
        #[arg(long)]
        detach: bool,
    },
    /// Terminates an agent. Runs that are under way go on.
    #[command(after_help = "Example:\n  convergio agents rm tutor")]
    Rm {
        /// The agent, by its name or id.
        agent: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AgentCreateArgs {
    /// The name.
    pub(crate) name: String,
    /// `auto`, a provider's name, or PROVIDER/MODEL.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The system prompt.
    #[arg(long, conflicts_with = "system_file")]
    pub(crate) system: Option<String>,
    /// A file with the system prompt.
    #[arg(long)]
    pub(crate) system_file: Option<PathBuf>,
    /// What it is for, in a sentence.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// A tool: a name, {"agent": NAME} or {"graph": NAME}. May be given several times.
    #[arg(long = "tool", value_name = "TOOL")]
    pub(crate) tools: Vec<String>,
    /// Most tokens of one answer.
    #[arg(long)]
    pub(crate) max_tokens: Option<u32>,
    /// Most model calls of a run.
    #[arg(long)]
    pub(crate) max_turns: Option<u32>,
    /// Most tool calls of a run.
    #[arg(long)]
    pub(crate) max_tool_calls: Option<u32>,
    /// Most tokens of a run.
    #[arg(long)]
    pub(crate) max_total_tokens: Option<u64>,
    /// Most money of a run in US dollars, as 0.50.
    #[arg(long)]
    pub(crate) cost: Option<String>,
    /// Longest time of a run, as 120s.
    #[arg(long)]
    pub(crate) timeout: Option<String>,
    /// Whose memory it uses: a template.
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) memory: Option<String>,
    /// Where its prompts may travel: any or local.
    #[arg(long)]
    pub(crate) privacy: Option<String>,
}
