//! Routing decisions, recomputed: the kernel's router over the candidates stored with a model call.

use convergio_domain::event::Event;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::event::{ModelCallIntended, RunEvent};
use convergio_domain::run::{CandidateFacts, RouterCandidate, RouterDecision, RoutingCandidates};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{EventLog, LogError, Record};

use super::progress::{Divergence, Replay, kernel_refusal};
use crate::catalog::router::{RouteQuestion, decisions_digest, rank_candidates, reason_text};

/// Maximum payloads in memory; a run refers to its last few candidate tables again and again.
const CACHED_PAYLOADS_LIMIT: usize = 64;

impl Replay {
    /// Returns the payloads that a commit's decisions depend on and that are not in memory. They
    /// should be [provided](Self::provide_payload) first; decisions without their payload are
    /// counted as skipped.
    pub fn missing_payloads(&self, record: &Record) -> Vec<PayloadRef> {
        let required = record.body.events.iter().filter_map(required_payload);
        let mut missing: Vec<_> = required.filter(|at| !self.payloads.contains_key(at)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Provides a payload; `None` if it was erased or cannot be found.
    pub fn provide_payload(&mut self, reference: PayloadRef, bytes: Option<Vec<u8>>) {
        // The lowest place is the oldest payload, which later calls are least likely to name.
        if self.payloads.len() == CACHED_PAYLOADS_LIMIT {
            self.payloads.pop_first();
        }
        self.payloads.insert(reference, bytes);
    }

    /// Provides the payloads that a commit needs from the log that it is in.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn provide_missing_payloads(
        &mut self,
        log: &dyn EventLog,
        run: &StreamKey,
        record: &Record,
    ) -> Result<(), LogError> {
        for reference in self.missing_payloads(record) {
            let bytes = log.read_payload(run, reference).await?;
            self.provide_payload(reference, bytes.map(Vec::from));
        }
        Ok(())
    }

    /// Checks that the router chooses the recorded model again, for the same reason.
    pub(super) fn check_route(
        &mut self,
        seq: Seq,
        call: &ModelCallIntended,
    ) -> Result<(), Box<Divergence>> {
        // Early versions of the program did not record the candidates.
        let Some(routing) = call.routing.as_deref() else { return Ok(()) };
        let Some(candidates) = self.load_candidates(call, routing, seq)? else {
            self.skipped_decisions += 1;
            return Ok(());
        };
        self.decisions += 1;
        let traits: Vec<&CandidateFacts> =
            candidates.iter().map(|offered| &offered.traits).collect();
        let decisions = rank_candidates(RouteQuestion::from_routing(routing), &traits);
        let decisions = decisions.map_err(|error| kernel_refusal(seq, Some(&call.step), &error))?;
        let best = decisions.first().filter(|best| best.accepted);
        let chosen =
            best.and_then(|best| Some((candidates.get(best.index as usize)?, best.reason)));
        let computed = chosen.map_or_else(
            || "nobody".to_owned(),
            |(to, why)| format_choice(&to.provider, &to.model, to.key.as_deref(), reason_text(why)),
        );
        let recorded = format_choice(&call.provider, &call.model, call.key.as_deref(), &call.route);
        let differs = |what, recorded, computed| {
            Err(Box::new(Divergence {
                seq,
                step: Some(call.step.clone()),
                aspect: what,
                recorded,
                computed,
            }))
        };
        if recorded != computed {
            return differs("the route", recorded, computed);
        }
        // The digest covers the losers' ranking too: a changed rule may leave the winner as it is.
        let verdicts = decisions_digest(&decisions);
        if verdicts != routing.verdicts {
            let digest_text = |print: Option<String>| print.unwrap_or_else(|| "none".into());
            let (recorded, computed) =
                (digest_text(routing.verdicts.clone()), digest_text(verdicts));
            return differs("the verdicts on the other models", recorded, computed);
        }
        Ok(())
    }

    /// Loads the candidates of a call; `None` when their table is not available.
    fn load_candidates(
        &self,
        call: &ModelCallIntended,
        routing: &RouterDecision,
        seq: Seq,
    ) -> Result<Option<Vec<RouterCandidate>>, Box<Divergence>> {
        let table = match &routing.candidates {
            // A single candidate stands in the event itself; there is no table.
            RoutingCandidates::One(traits) => {
                let (provider, model) = (call.provider.clone(), call.model.clone());
                let (key, traits) = (call.key.clone(), traits.clone());
                return Ok(Some(vec![RouterCandidate { provider, model, key, traits }]));
            }
            RoutingCandidates::Table(table) => table,
        };
        let Some(bytes) = self.payloads.get(table).and_then(Option::as_ref) else {
            return Ok(None);
        };
        let read = serde_json::from_slice(bytes);
        read.map(Some).map_err(|error| {
            let (aspect, recorded) = ("the candidates of a route", format!("payload {table}"));
            let computed = format!("it cannot be read: {error}");
            Box::new(Divergence { seq, step: Some(call.step.clone()), aspect, recorded, computed })
        })
    }
}

/// Returns the payload that an event's decision depends on.
fn required_payload(event: &Event) -> Option<PayloadRef> {
    match event.as_run()? {
        RunEvent::ModelCallIntended(call) => match call.routing.as_deref()?.candidates {
            RoutingCandidates::Table(table) => Some(table),
            RoutingCandidates::One(_) => None,
        },
        RunEvent::ModelCallCompleted(call) => call.answer,
        _ => None,
    }
}

fn format_choice(provider: &str, model: &str, key: Option<&str>, reason: &str) -> String {
    let key = key.map_or_else(String::new, |key| format!(" with {key}"));
    format!("{provider}/{model}{key}: {reason}")
}
