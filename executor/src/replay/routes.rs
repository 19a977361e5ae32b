//! Routing decisions, recomputed: the kernel's router over the candidates stored with a model call.

use std::collections::BTreeMap;

use convergio_domain::event::{Event, run};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{Candidates, Offered, Routing, Traits};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{EventLog, LogError, Record};

use super::{Divergence, Replay, refused};
use crate::model::verdict::{Asked, judge, print, reason};

/// Maximum payloads in memory; a run refers to its last few candidate tables again and again.
const PAYLOADS_LIMIT: usize = 64;

/// Candidate tables and model answers by their place in the run's stream; `None` for one that is
/// not available.
pub(super) type Payloads = BTreeMap<PayloadRef, Option<Vec<u8>>>;

impl Replay {
    /// Returns the payloads that a commit's decisions depend on and that are not in memory. They
    /// should be [provided](Self::provide_payload) first; decisions without their payload are
    /// counted as skipped.
    pub fn lacks(&self, record: &Record) -> Vec<PayloadRef> {
        let wanted = record.body.events.iter().filter_map(rests_on);
        let mut lacking: Vec<_> = wanted.filter(|at| !self.payloads.contains_key(at)).collect();
        lacking.sort_unstable();
        lacking.dedup();
        lacking
    }

    /// Provides a payload; `None` if it was erased or cannot be found.
    pub fn provide(&mut self, at: PayloadRef, bytes: Option<Vec<u8>>) {
        // The lowest place is the oldest payload, which later calls are least likely to name.
        if self.payloads.len() == PAYLOADS_LIMIT {
            self.payloads.pop_first();
        }
        self.payloads.insert(at, bytes);
    }

    /// Provides the payloads that a commit needs from the log that it is in.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn provide_from(
        &mut self,
        log: &dyn EventLog,
        run: &StreamKey,
        record: &Record,
    ) -> Result<(), LogError> {
        for at in self.lacks(record) {
            let bytes = log.payload(run, at).await?;
            self.provide(at, bytes.map(Vec::from));
        }
        Ok(())
    }

    /// Checks that the router chooses the recorded model again, for the same reason.
    pub(super) fn routed(
        &mut self,
        seq: Seq,
        call: &run::ModelCallIntended,
    ) -> Result<(), Box<Divergence>> {
        // Early versions of the program did not record the candidates.
        let Some(routing) = call.routing.as_deref() else { return Ok(()) };
        let Some(offered) = self.offered(call, routing, seq)? else {
            self.unknown += 1;
            return Ok(());
        };
        self.decisions += 1;
        let traits: Vec<&Traits> = offered.iter().map(|offered| &offered.traits).collect();
        let decisions = judge(Asked::of(routing), &traits);
        let decisions = decisions.map_err(|error| refused(seq, Some(&call.step), &error))?;
        let best = decisions.first().filter(|best| best.accepted);
        let best = best.and_then(|best| Some((offered.get(best.index as usize)?, best.reason)));
        let computed = best.map_or_else(
            || "nobody".to_owned(),
            |(to, why)| choice(&to.provider, &to.model, to.key.as_deref(), reason(why)),
        );
        let recorded = choice(&call.provider, &call.model, call.key.as_deref(), &call.route);
        let differs = |what, recorded, computed| {
            Err(Box::new(Divergence {
                seq,
                step: Some(call.step.clone()),
                what,
                recorded,
                computed,
            }))
        };
        if recorded != computed {
            return differs("the route", recorded, computed);
        }
        // The digest covers the losers' ranking too: a changed rule may leave the winner as it is.
        let verdicts = print(&decisions);
        if verdicts != routing.verdicts {
            let shown = |print: Option<String>| print.unwrap_or_else(|| "none".into());
            let (recorded, computed) = (shown(routing.verdicts.clone()), shown(verdicts));
            return differs("the verdicts on the other models", recorded, computed);
        }
        Ok(())
    }

    /// Loads the candidates of a call; `None` when their table is not available.
    fn offered(
        &self,
        call: &run::ModelCallIntended,
        routing: &Routing,
        seq: Seq,
    ) -> Result<Option<Vec<Offered>>, Box<Divergence>> {
        let table = match &routing.candidates {
            // A single candidate stands in the event itself; there is no table.
            Candidates::One(traits) => {
                let (provider, model) = (call.provider.clone(), call.model.clone());
                let (key, traits) = (call.key.clone(), traits.clone());
                return Ok(Some(vec![Offered { provider, model, key, traits }]));
            }
            Candidates::Table(table) => table,
        };
        let Some(bytes) = self.payloads.get(table).and_then(Option::as_ref) else {
            return Ok(None);
        };
        let read = serde_json::from_slice(bytes);
        read.map(Some).map_err(|error| {
            let (what, recorded) = ("the candidates of a route", format!("payload {table}"));
            let computed = format!("it cannot be read: {error}");
            Box::new(Divergence { seq, step: Some(call.step.clone()), what, recorded, computed })
        })
    }
}

/// Returns the payload that an event's decision depends on.
fn rests_on(event: &Event) -> Option<PayloadRef> {
    match event {
        Event::ModelCallIntended(call) => match call.routing.as_deref()?.candidates {
            Candidates::Table(table) => Some(table),
            Candidates::One(_) => None,
        },
        Event::ModelCallCompleted(call) => call.answer,
        _ => None,
    }
}

fn choice(provider: &str, model: &str, key: Option<&str>, why: &str) -> String {
    let key = key.map_or_else(String::new, |key| format!(" with {key}"));
    format!("{provider}/{model}{key}: {why}")
}
