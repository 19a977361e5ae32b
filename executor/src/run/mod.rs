//! The loop of a run: an actor that commits results and intents, and launches effects once their
//! intents are durable.
//!
//! An actor owns the folded state, the kernel's scheduler and the effects in flight. It holds
//! nothing that the log does not have, or could not have again: it may vanish at any moment, and
//! another one resumes the run.
//!
//! From the top (who calls whom):
//! - `run_loop`: collects results (`results`, `external_input`), asks `planning` for the next
//!   commit, has `commit` write it and `launch` its effects, and waits when nothing can be done;
//!   `evaluation` is the wait for an evaluation that a plan needs
//! - `planning`: begins a plan, has a `Planner` of `step` fill it, and ends the run
//! - `ancestors`, `children`: the runs that this one is within, and those within it
//! - `actor`: the run in memory: its state, `schedule` (steps that may start or wait) and `inbox`
//!   (effects in flight and their results)
//!
//! Nothing here renders a template, chooses a model, decides what an event does to a run, or has an
//! effect before its intent is committed. `step` and `effect` know nothing of this folder.

mod actor;
mod ancestors;
mod children;
mod commit;
mod evaluation;
mod external_input;
mod inbox;
mod launch;
mod planning;
mod results;
mod run_loop;
mod schedule;

pub(crate) use actor::RunActor;
