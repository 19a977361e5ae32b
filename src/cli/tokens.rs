//! Arguments of `convergio tokens`.

use clap::Subcommand;
use convergio_domain::id::{ActorId, NodeId};

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TokensCommand {
    /// Makes a token and prints it, once.
    #[command(after_help = "Example:\n  convergio tokens new ann --role teacher >ann.token")]
    New {
        /// The name that stands in the log for who has it.
        actor: ActorId,
        /// What it answers for; may be given several times.
        #[arg(long = "role", required = true)]
        roles: Vec<NodeId>,
    },
    /// Lists who has a token, and the roles.
    #[command(after_help = "Example:\n  convergio tokens list --json")]
    List,
    /// Makes a new token in the place of one, which opens nothing any more: the owner's, which
    /// stays in the data folder, or somebody's, which is printed once.
    #[command(after_help = "Example:\n  convergio tokens rotate\n  convergio tokens rotate ann \
        >ann.token")]
    Rotate {
        /// Whose; the one that this command signs in with when absent.
        actor: Option<ActorId>,
    },
    /// Takes somebody's token away, at once and in every process of the log.
    #[command(after_help = "Example:\n  convergio tokens revoke ann")]
    Revoke {
        /// Whose: the name, or the token's id.
        actor: String,
    },
}
