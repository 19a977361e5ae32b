//! Limits on concurrent model calls of a server.

use clap::Args;
use convergio_executor::ExecutorConfig;

/// Default of model calls under way at once over all runs.
const DEFAULT_CALLS: u16 = 64;
/// Default of model calls under way at once in one run.
const DEFAULT_CALLS_PER_RUN: u16 = 10;

/// Limits of model calls at once. How many one provider is sent is a setting of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct ModelCallLimits {
    /// Model calls under way at once over all runs, 1 to 1024. A provider has a limit of its own:
    /// `max_parallel` in providers.json.
    #[arg(
        long, env = "CONVERGIO_MODEL_CALLS", default_value_t = DEFAULT_CALLS,
        value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub model_calls: u16,
    /// Model calls at once in one run, 1 to 1024, those that wait for a place with their provider
    /// among them.
    #[arg(
        long, env = "CONVERGIO_MODEL_CALLS_PER_RUN", default_value_t = DEFAULT_CALLS_PER_RUN,
        value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub model_calls_per_run: u16,
}

impl Default for ModelCallLimits {
    fn default() -> Self {
        Self { model_calls: DEFAULT_CALLS, model_calls_per_run: DEFAULT_CALLS_PER_RUN }
    }
}

impl ModelCallLimits {
    /// Sets an executor's limits. Steps per run are raised to the model calls per run, which would
    /// be out of reach otherwise.
    pub fn apply_to_config(self, config: &mut ExecutorConfig) {
        config.model_calls = usize::from(self.model_calls);
        config.model_calls_per_run = usize::from(self.model_calls_per_run);
        config.steps_per_run = config.steps_per_run.max(config.model_calls_per_run);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use convergio_domain::id::ExecutorId;
    use convergio_executor::ExecutorConfig;
    use uuid::Uuid;

    use super::ModelCallLimits;

    /// A command line with these options alone.
    #[derive(Parser)]
    struct OptionsParser {
        #[command(flatten)]
        options: ModelCallLimits,
    }

    fn limits(arguments: &[&str]) -> Result<ModelCallLimits, clap::Error> {
        let all = ["serve"].iter().chain(arguments);
        OptionsParser::try_parse_from(all).map(|parser| parser.options)
    }

    #[test]
    fn the_defaults_are_those_of_the_executor() {
        let mut config = ExecutorConfig::new(ExecutorId(Uuid::nil()));
        let before = (config.model_calls, config.model_calls_per_run, config.steps_per_run);
        ModelCallLimits::default().apply_to_config(&mut config);
        let after = (config.model_calls, config.model_calls_per_run, config.steps_per_run);
        assert_eq!(before, after);
    }

    #[test]
    fn limits_reach_the_executor_and_make_room_for_as_many_steps() {
        let set = limits(&["--model-calls", "200", "--model-calls-per-run", "100"]).unwrap();
        let mut config = ExecutorConfig::new(ExecutorId(Uuid::nil()));
        set.apply_to_config(&mut config);
        assert_eq!((config.model_calls, config.model_calls_per_run), (200, 100));
        assert!(config.steps_per_run >= 100);
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        for option in ["--model-calls", "--model-calls-per-run"] {
            for wrong in ["0", "1025", "-1", "many"] {
                let error = limits(&[&format!("{option}={wrong}")]).unwrap_err().to_string();
                assert!(error.contains(option) && error.contains(wrong), "{error}");
            }
        }
    }
}
