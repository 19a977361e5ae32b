//! What one call at a front door may use, and what goes through it unseen.

use clap::Args;
use convergio_domain::money::Money;
use convergio_domain::run::Budget;
use convergio_gateway::CompatSettings;

/// Limits and switches of the front doors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct DoorOptions {
    /// Most tokens that one call at a front door may use, its prompt and its answer; 100,000,000
    /// unless it is set: far more than any model holds.
    #[arg(
        long, env = "CONVERGIO_DOOR_TOKENS", value_name = "TOKENS",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub door_tokens: Option<u64>,
    /// Most money that one call at a front door may cost, in the currency of its model's price, as
    /// 2.50. A model without a price is not asked then.
    #[arg(long, env = "CONVERGIO_DOOR_COST", value_name = "AMOUNT")]
    pub door_cost: Option<Money>,
    /// Whether fields of a request that Convergio does not know go on to providers whose traits in
    /// providers.json say `passes_unknown`. Otherwise they are refused by name.
    #[arg(long, env = "CONVERGIO_PASS_UNKNOWN_FIELDS")]
    pub pass_unknown_fields: bool,
}

impl DoorOptions {
    /// Settings for the gateway: what was given, and its defaults for the rest.
    pub fn to_settings(self) -> CompatSettings {
        let default_settings = CompatSettings::default();
        let budget = Budget {
            tokens: self.door_tokens.or(default_settings.budget.tokens),
            cost: self.door_cost,
            ..default_settings.budget
        };
        CompatSettings { passes_unknown_fields: self.pass_unknown_fields, budget }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::DoorOptions;

    /// A command line with these options alone.
    #[derive(Parser)]
    struct OptionsParser {
        #[command(flatten)]
        options: DoorOptions,
    }

    fn options(arguments: &[&str]) -> Result<DoorOptions, clap::Error> {
        let all = ["serve"].iter().chain(arguments);
        OptionsParser::try_parse_from(all).map(|parser| parser.options)
    }

    #[test]
    fn a_call_is_held_to_what_the_operator_says_and_else_to_more_than_any_model_holds() {
        let usual = options(&[]).unwrap().to_settings();
        assert!(usual.budget.tokens.is_some_and(|tokens| tokens >= 10_000_000));
        assert_eq!((usual.budget.cost, usual.passes_unknown_fields), (None, false));
        let set = ["--door-tokens", "5", "--door-cost", "0.25", "--pass-unknown-fields"];
        let set = options(&set).unwrap().to_settings();
        assert_eq!(set.budget.tokens, Some(5));
        assert_eq!(set.budget.cost.map(|cost| cost.to_string()).as_deref(), Some("0.25"));
        assert!(set.passes_unknown_fields);
    }

    #[test]
    fn what_is_no_limit_is_refused_by_name() {
        for (option, wrong) in [("--door-tokens", "0"), ("--door-cost", "free")] {
            let error = options(&[&format!("{option}={wrong}")]).unwrap_err().to_string();
            assert!(error.contains(option) && error.contains(wrong), "{error}");
        }
    }
}
