//! The preparation of steps: a step that may start becomes an intent, its payloads and an effect to
//! launch, all of them within one commit's plan.
//!
//! From the top (who calls whom):
//! - `prepare`: one step that starts, by the kind of its node
//! - `turns`, `queued_calls`: agents that go in turns, from result to result; `proposals` for plan
//!   nodes
//! - `transcript`: the conversation of a turn; `agent_tools`: the tools that it may request
//! - `model_call`: a model chosen by the `requirements` of a request, the exact request stored;
//!   `candidate_tables`: what the model was chosen from
//! - `sub_run`, `reopen`: child runs that begin, or go on after their end
//! - `context`: the scope of a step; `render`: templates in that scope, with `evaluations` of what
//!   is too large to be evaluated in place
//! - `agent`, `agent_request`: the agent of a step, and its templates as a chat request
//! - `tool_check`: the verdict on a tool call, which a replay makes again
//!
//! On the ground lies `planner`: all that is seen and touched here. Nothing here starts an effect,
//! writes to the log, or sees the loop of `run`: steps in flight, waits and capacity come in with
//! the plan.

mod agent;
mod agent_request;
mod agent_tools;
mod candidate_tables;
mod context;
mod evaluations;
mod model_call;
mod planner;
mod prepare;
mod proposals;
mod queued_calls;
mod render;
mod reopen;
mod requirements;
mod sub_run;
mod tool_check;
mod transcript;
mod turns;

pub(crate) use agent::TurnAgent;
pub(crate) use evaluations::{OutsideEvaluations, with_fingerprint};
pub(crate) use planner::{Planner, StepCaches};
pub(crate) use tool_check::{CallFate, CallVerdict, judge_tool_call};
