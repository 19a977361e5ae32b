//! Effects: what an intent announced is done here, once it is durable.
//!
//! - [`run_effect`] runs one effect to its end, in a task of its own; `trace` is its span
//! - `model`: a model call, with `fallback` to another model after a failure
//! - `tool`: a call of a built-in tool
//! - `sub_run`: the creation of a child run; `sub_run_reopen` lets one go on that exists already,
//!   `sub_run_report` tells the parent of its end
//! - `family`: an ended run among its relatives
//!
//! `run` launches effects and collects their results; what they are given and what they return is
//! plain data of `plan`. Nothing here sees an actor, a commit in preparation or a scheduler, and
//! nothing here decides what follows from a result. Child runs are written to by commands to their
//! own streams, never to the stream of the run that an effect belongs to, but for the report of a
//! child's end.

mod fallback;
mod family;
mod model;
mod sub_run;
mod sub_run_reopen;
mod sub_run_report;
mod tool;
mod trace;

pub(crate) use family::settle_family;
pub(crate) use sub_run::create_child;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use convergio_domain::platform_text;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::plan::{EffectLaunch, EffectOutcome, EffectResult, EffectWork, NewChild, new_failure};
use crate::services::SharedServices;
use model::ModelCallRunner;
use tool::call_tool;

/// Runs an effect to its end. A panic of a tool or a provider adapter fails the step.
///
/// Large futures are boxed where they begin: this one is moved several times on its way to its
/// task, which for a small tool would cost more than the call.
pub(crate) async fn run_effect(
    shared: Arc<SharedServices>,
    stream: StreamKey,
    launch: EffectLaunch,
    child: Option<Box<NewChild>>,
    started: Timestamp,
    cancel: CancellationToken,
) -> EffectResult {
    let effect_span = trace::effect_span(&stream, &launch);
    let EffectLaunch { step, attempt, tool_call, timeout, work } = launch;
    let effect = async {
        match work {
            EffectWork::Tool { name, args } => {
                let (place, call) = ((&*shared, &stream), (&step, tool_call));
                (call_tool(place, call, (name, args), timeout, started).await, None)
            }
            EffectWork::Model(call) => {
                let runner = ModelCallRunner {
                    shared: &shared,
                    stream: &stream,
                    step: &step,
                    attempt,
                    timeout,
                };
                Box::pin(runner.call_model(call, &cancel)).await
            }
            EffectWork::Child(_) => match child {
                Some(child) => {
                    let created = create_child(&shared, &stream, *child, &cancel);
                    (Box::pin(created).await, None)
                }
                None => (EffectOutcome::ChildCreated, None),
            },
        }
    };
    // Tools and adapters are foreign code: their panic must not take the actor down.
    let caught_result =
        AssertUnwindSafe(effect).catch_unwind().instrument(effect_span.clone()).await;
    let (outcome, call_report) = caught_result.unwrap_or_else(|_| {
        let message =
            platform_text!("the step's code panicked: this is a defect, please report it");
        (EffectOutcome::Failed(new_failure("internal", message)), None)
    });
    let effect_result = EffectResult { step, attempt, tool_call, outcome, call_report };
    trace::record_result(&effect_span, &effect_result);
    effect_result
}
