//! A budget of money and tokens: whatever calls use, cost, leave unknown or never answer, the run
//! does not end above it.

use convergio_domain::billing::{
    CallBound, Charge, Meter, Price, PriceBook, PriceQuery, Usage, allot_share, post_usage,
};
use convergio_domain::money::{Currency, Money};
use convergio_domain::run::event::UsageRecorded;
use convergio_domain::run::{
    AdvanceRun, Budget, BudgetUsage, CallReport, RunCommand, RunPhase, StepIntent, StepResult,
};
use convergio_domain::time::Timestamp;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use serde_json::json;

use crate::history::{History, advance, completed, failed, model_call, outcome, outcomes, start};

const QUERY: PriceQuery<'static> = PriceQuery {
    provider: "p",
    model: "m",
    is_local: false,
    service_tier: None,
    at: Timestamp(1_000),
};

/// Cached input is cheap, written input dear; beyond 500 tokens everything costs twice as much,
/// served by priority three times. Sound has no price.
fn book() -> PriceBook {
    let rates = |factor: u32| {
        json!({"in_fresh": (2 * factor).to_string(), "in_cache_read": factor.to_string(),
            "in_cache_write_1h": (4 * factor).to_string(), "out_text": (8 * factor).to_string(),
            "out_reasoning": (9 * factor).to_string()})
    };
    let price = json!([{"provider": "p", "model": "m", "from_ms": 0, "currency": "USD",
        "per_token": rates(1), "tiers": [{"above_tokens": 500, "per_token": rates(2)}],
        "services": {"priority": {"per_token": rates(3)}}}]);
    PriceBook::parse_book(&price.to_string()).expect("a book")
}

fn call(bound: CallBound, cost: Option<Money>) -> StepIntent {
    let mut intent = model_call(bound.input_tokens + bound.output_tokens);
    if let StepIntent::CallModel { reserved_cost, .. } = &mut intent {
        *reserved_cost = cost;
    }
    intent
}

fn start_call(run: &mut History, bound: CallBound, cost: Option<Money>) {
    let starts = vec![start("a", call(bound, cost))];
    run.when(RunCommand::Advance(AdvanceRun { starts, ..advance() })).expect("it may start");
}

/// How a call ended, and what it used of what it might have used.
#[derive(Debug, Clone)]
struct CallEnd {
    bound: CallBound,
    parts: [u8; 6],
    tier: Option<bool>,
    kind: u8,
}

fn ends() -> impl Strategy<Value = Vec<CallEnd>> {
    let bound = (0..1_000_u64, 0..200_u64).prop_map(|(input_tokens, output_tokens)| CallBound {
        input_tokens,
        output_tokens,
        ..CallBound::default()
    });
    let end = (bound, any::<[u8; 6]>(), any::<Option<bool>>(), any::<u8>())
        .prop_map(|(bound, parts, tier, kind)| CallEnd { bound, parts, tier, kind });
    prop::collection::vec(end, 1..30)
}

/// What the provider billed, in truth: never more than the bound, of whatever classes.
fn billed(end: &CallEnd) -> (Usage, Option<Charge>) {
    let mut usage = Usage::default();
    let (mut input, mut output) = (end.bound.input_tokens, end.bound.output_tokens);
    let meters = [
        Meter::InFresh,
        Meter::InCacheRead,
        Meter::InCacheWrite1h,
        Meter::InAudio,
        Meter::OutText,
        Meter::OutReasoning,
    ];
    for (meter, part) in meters.into_iter().zip(end.parts) {
        let left = if meter.is_input() { &mut input } else { &mut output };
        let tokens = *left * u64::from(part) / 255;
        *left -= tokens;
        if tokens > 0 {
            usage.0.insert(meter, tokens);
        }
    }
    let service_tier = end.tier.map(|is_priority| if is_priority { "priority" } else { "default" });
    let charge = book().charge_call(PriceQuery { service_tier, ..QUERY }, &usage);
    (usage, charge)
}

fn report(usage: Option<Usage>, charge: Option<Charge>, finish: Option<&str>) -> CallReport {
    CallReport {
        finish: finish.map(str::to_owned),
        duration_ms: 1,
        usage,
        confirmed: finish.is_some(),
        charge,
        ..CallReport::unconfirmed("p", "m")
    }
}

/// Ends the call that is under way; gives what the provider billed for it at most.
fn end_call(run: &mut History, attempt: u32, end: &CallEnd) -> (u64, Money) {
    let worst = book().worst_cost(QUERY, end.bound).expect("it has a price");
    let (usage, charge) = billed(end);
    let cost = charge.as_ref().map_or(worst, |charge| charge.amount);
    let tokens = usage.total_tokens();
    let again = Some(run.now);
    let (result, call, billed) = match end.kind % 4 {
        0 => (completed(), Some(report(Some(usage), charge, Some("stop"))), (tokens, cost)),
        1 => (failed(again), Some(report(Some(usage), charge, None)), (tokens, cost)),
        // Refused before anything was done.
        2 => (failed(again), Some(report(None, None, None)), (0, Money::ZERO)),
        // The process died: it may have cost everything.
        _ => {
            let held = (end.bound.input_tokens + end.bound.output_tokens, worst);
            let lost = StepResult::Unknown { retry_at: again };
            (lost, Some(report(Some(usage), charge, None)), held)
        }
    };
    let mut outcome = outcome("a", attempt, result);
    outcome.call = call;
    run.when(outcomes(vec![outcome])).expect("it was under way");
    billed
}

proptest! {
    #[test]
    fn no_sequence_of_calls_ends_above_the_budget(
        ends in ends(), limit in 1..60_000_i128, token_limit in 1..20_000_u64,
    ) {
        let limit = Money::from_scaled(limit * 1_000_000_000_000_000);
        let budget =
            Budget { tokens: Some(token_limit), cost: Some(limit), ..Budget::UNBOUND };
        let mut run = History::created(budget);
        let (mut tokens, mut cost) = (0, Money::ZERO);
        for (attempt, end) in (1_u32..).zip(&ends) {
            let worst = book().worst_cost(QUERY, end.bound);
            start_call(&mut run, end.bound, worst);
            if run.state.phase == RunPhase::Failed {
                break;
            }
            let billed = end_call(&mut run, attempt, end);
            (tokens, cost) = (tokens + billed.0, cost + billed.1);
            prop_assert!(tokens <= token_limit, "{tokens} tokens of {token_limit}");
            prop_assert!(cost <= limit, "{cost} of {limit}");
            if end.kind % 4 == 0 {
                break;
            }
        }
    }
}

proptest! {
    #[test]
    fn a_hold_is_never_below_the_charge_of_what_it_bounds(ends in ends()) {
        for end in &ends {
            let hold = book().reserve_call(QUERY, end.bound, None);
            prop_assert_eq!((hold.bound, hold.output_limit), (end.bound, None));
            let (usage, charge) = billed(end);
            prop_assert!(usage.total_tokens() <= hold.bound.total_tokens());
            let charged = charge.map_or(Money::ZERO, |charge| charge.amount);
            prop_assert!(charged <= hold.cost.expect("it has a price"));
        }
    }

    #[test]
    fn an_answer_that_the_budget_limits_fits_into_what_is_left(
        ends in ends(), tokens in 1..2_000_u64, cost in 1..20_000_i128,
    ) {
        let cost = Money::from_scaled(cost * 1_000_000_000_000_000);
        let left = Budget { tokens: Some(tokens), cost: Some(cost), ..Budget::UNBOUND };
        for end in &ends {
            let hold = book().reserve_call(QUERY, end.bound, Some(left));
            prop_assert!(hold.bound.total_tokens() <= end.bound.total_tokens());
            if let Some(limit) = hold.output_limit {
                prop_assert_eq!(u64::from(limit), hold.bound.output_tokens);
                prop_assert!(hold.bound.total_tokens() <= tokens);
                prop_assert!(hold.cost.expect("it has a price") <= cost);
            }
        }
    }

    #[test]
    fn allotments_sum_to_what_is_left_of_the_budget(
        tokens in any::<u32>(), cost in any::<i64>(), spent in any::<u32>(), shares in 1..20_u64,
    ) {
        let (tokens, cost) = (u64::from(tokens), Money::from_scaled(i128::from(cost)));
        let budget = Budget { tokens: Some(tokens), cost: Some(cost), ..Budget::UNBOUND };
        let cost_spent = Money::from_scaled(i128::from(spent));
        let mut usage =
            BudgetUsage { tokens: u64::from(spent), cost: cost_spent, ..BudgetUsage::default() };
        // All at once, rounded down.
        let share = allot_share(budget, usage, shares);
        let left = allot_share(budget, usage, 1);
        prop_assert!(share.tokens.unwrap() * shares <= left.tokens.unwrap());
        let cost_of = |budget: Budget| budget.cost.unwrap().as_scaled();
        prop_assert!(cost_of(share) * i128::from(shares) <= cost_of(left));
        // One after the other, each held: the last one gets the rest.
        for claimants in (1..=shares).rev() {
            let share = allot_share(budget, usage, claimants);
            usage.reserved_tokens += share.tokens.unwrap();
            usage.reserved_cost += share.cost.unwrap();
        }
        prop_assert_eq!(usage.reserved_tokens, left.tokens.unwrap());
        prop_assert_eq!(usage.reserved_cost, left.cost.unwrap());
    }

    #[test]
    fn postings_balance_to_zero_and_sum_to_the_charge(ends in ends()) {
        for end in &ends {
            let (usage, charge) = billed(end);
            let charged = charge.as_ref().map_or(Money::ZERO, |charge| charge.amount);
            let meters: Vec<Meter> = usage.0.keys().copied().collect();
            let recorded = UsageRecorded {
                step: "a".parse().expect("a step"),
                attempt: 1,
                turn: 0,
                provider: "p".into(),
                model: "m".into(),
                usage,
                confirmed: true,
                hold: None,
                service_tier: None,
                charge,
                provider_cost: None,
            };
            let postings = meters.iter().filter_map(|meter| post_usage(&recorded, *meter));
            let mut booked = Money::ZERO;
            for posting in postings {
                booked += posting.amount;
                let changes = posting.balance_changes();
                prop_assert_eq!(changes.iter().map(|(_, change)| change).sum::<i128>(), 0);
            }
            prop_assert_eq!(booked, charged);
        }
    }
}

#[test]
fn a_budget_of_money_and_no_price_is_refused_before_the_call() {
    let limit = Money::from_scaled(1);
    let mut run = History::created(Budget { cost: Some(limit), ..Budget::UNBOUND });
    start_call(
        &mut run,
        CallBound { input_tokens: 1, output_tokens: 1, ..CallBound::default() },
        None,
    );
    let error = run.state.error.as_ref().expect("it failed");
    assert_eq!(error.code, "budget.exceeded");
    assert!(error.message.contains("no price"), "{}", error.message);
    assert!(!run.events.iter().any(|it| it.type_name() == "run.model_call.intended.v1"));
}

#[test]
fn what_has_no_price_after_all_costs_what_was_held() {
    let (limit, held) = (Money::from_scaled(1_000), Money::from_scaled(600));
    let mut run = History::created(Budget { cost: Some(limit), ..Budget::UNBOUND });
    let bound = CallBound { input_tokens: 9, ..CallBound::default() };
    start_call(&mut run, bound, Some(held));
    let mut told = outcome("a", 1, failed(Some(run.now)));
    let audio = Usage([(Meter::InAudio, 9)].into());
    told.call = Some(report(Some(audio), None, None));
    run.when(outcomes(vec![told])).expect("it was under way");
    assert_eq!(run.state.spent.cost, held);
    start_call(&mut run, bound, Some(held));
    assert_eq!(run.state.phase, RunPhase::Failed, "600 of 1000 are spent, 600 more are not there");
}

#[test]
fn a_currency_is_said_with_every_charge() {
    let price: Vec<Price> = serde_json::from_value(json!([{"provider": "p", "model": "m",
        "from_ms": 0, "currency": "EUR", "per_token": {"in_fresh": "1"}}]))
    .expect("a price");
    let book =
        PriceBook::parse_book(&serde_json::to_string(&price).expect("JSON")).expect("a book");
    let charge = book.charge_call(QUERY, &Usage([(Meter::InFresh, 1)].into())).expect("priced");
    assert_eq!(charge.currency, Currency::Eur);
}
