//! What a step is about to do: its templates rendered, its model chosen, its intent written down.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::chat::{ChatRequest, Privacy};
use convergio_domain::event::run::Failure;
use convergio_domain::expr::{self, ExprError, Scope};
use convergio_domain::graph::manifest::{Agent, Approval, Branch, Map, MapWork, Sleep, Tool, Work};
use convergio_domain::id::{ApprovalId, NodeId, StepId};
use convergio_domain::payload::Purpose;
use convergio_domain::run::Intent;
use convergio_domain::time::Span;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Actor;
use super::effect::{Answers, DoneResult, Launch, ModelCall, Work as EffectWork};
use super::hop::Question;
use super::plan::Plan;
use crate::model::{Need, ask};
use crate::outputs::{Extra, OutputError};

/// Longest list that a map runs over.
const MAP_WIDTH_LIMIT: usize = 10_000;
/// Longest time of one try when the manifest names none.
const TIMEOUT: Span = Span::seconds(120);

/// What a step is about to do.
pub(super) enum Prepared {
    /// It starts; what has an effect is launched after the commit.
    Start { intent: Intent, launch: Option<Launch> },
    /// It becomes items.
    Expand { width: u32, max_parallel: u32, intent: Intent },
    /// It is over already.
    Instant(DoneResult),
}

impl Actor {
    /// Prepares one step. A failure is the step's own.
    pub(super) async fn prepare(
        &mut self,
        plan: &mut Plan,
        step: &StepId,
        attempt: u32,
        extra: &Extra,
    ) -> Result<Prepared, OutputError> {
        let graph = Arc::clone(&self.graph);
        let Some(node) = graph.graph.node(&step.node) else {
            return Err(OutputError::Failure(invalid(&format!("no node {}", step.node))));
        };
        let mut scope = self.outputs.scope(&self.run.state, &graph, &node.needs, extra).await?;
        let timeout = Duration::from_millis(node.timeout.unwrap_or(TIMEOUT).0);
        let is_repeatable = node.retry.max > 1;
        let start = Start { step, attempt, timeout, is_repeatable };
        match (&node.work, step.item) {
            (Work::Map(map), Some(item)) => {
                scope.item = Some((self.item(map, &step.node, &scope, item)?, item));
                match &map.work {
                    MapWork::Agent(agent) => self.agent_call(plan, start, agent, &scope).await,
                    MapWork::Tool(tool) => tool_call(start, tool, &scope),
                }
            }
            (Work::Map(map), None) => self.expand(map, &step.node, &scope),
            (Work::Agent(agent), _) => self.agent_call(plan, start, agent, &scope).await,
            (Work::Tool(tool), _) => tool_call(start, tool, &scope),
            (Work::Branch(branch), _) => choose(branch, &scope),
            (Work::Approval(approval), _) => self.ask(plan, approval, &scope),
            (Work::Sleep(Sleep { span }), _) => {
                let due = self.shared.now().after(*span);
                Ok(Prepared::Start { intent: Intent::Sleep { due }, launch: None })
            }
        }
    }

    /// The list of a map, rendered once while the run is in memory.
    fn list(
        &mut self,
        map: &Map,
        node: &NodeId,
        scope: &Scope,
    ) -> Result<Arc<Vec<Value>>, OutputError> {
        if let Some(list) = self.lists.get(node) {
            return Ok(Arc::clone(list));
        }
        let over = Value::String(map.over.clone());
        let list = match expr::render_value(&over, scope).map_err(|error| failed(&error))? {
            Value::Array(list) if list.len() <= MAP_WIDTH_LIMIT => Arc::new(list),
            Value::Array(list) => {
                let message =
                    format!("map.over has {} items: at most {MAP_WIDTH_LIMIT}", list.len());
                return Err(OutputError::Failure(invalid(&message)));
            }
            _ => {
                let message = "map.over must yield a list: use an output that is one";
                return Err(OutputError::Failure(invalid(message)));
            }
        };
        self.lists.insert(node.clone(), Arc::clone(&list));
        Ok(list)
    }

    fn item(
        &mut self,
        map: &Map,
        node: &NodeId,
        scope: &Scope,
        item: u32,
    ) -> Result<Value, OutputError> {
        let list = self.list(map, node, scope)?;
        let missing = || OutputError::Failure(invalid(&format!("the list has no item {item}")));
        list.get(item as usize).cloned().ok_or_else(missing)
    }

    fn expand(&mut self, map: &Map, node: &NodeId, scope: &Scope) -> Result<Prepared, OutputError> {
        let list = self.list(map, node, scope)?;
        if list.is_empty() {
            let empty = Arc::new(Value::Array(Vec::new()));
            return Ok(Prepared::Instant(DoneResult::Completed(Some(empty))));
        }
        let width = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let max_parallel = map.max_parallel;
        let intent = Intent::Expand { width, max_parallel };
        Ok(Prepared::Expand { width, max_parallel, intent })
    }

    async fn agent_call(
        &mut self,
        plan: &mut Plan,
        start: Start<'_>,
        agent: &Agent,
        scope: &Scope,
    ) -> Result<Prepared, OutputError> {
        let mut request = asked(agent, scope)?;
        request.privacy = request.privacy.max(self.privacy());
        let need = ask::need(&request);
        let known = self.run.state.steps.get(start.step);
        let avoid = known.map(|step| step.avoid.clone()).unwrap_or_default();
        let choice = self.shared.models.choose_after(&request.model, &need, &avoid).await;
        let choice = choice.map_err(OutputError::Failure)?;
        let wanted = request.model.clone();
        let request = ask::addressed(request, &need, &choice);
        let need = ask::need(&request);
        let left_out = choice.provider.left_out(&request);
        let body = choice.provider.body(&request);
        let slot = plan.store(body.to_vec(), "application/json", Purpose::Prompt);
        let intent = Intent::CallModel {
            provider: choice.provider.name().to_owned(),
            model: choice.model.clone(),
            route: choice.route,
            key: choice.key.clone(),
            left_out,
            prompt: slot,
            reserved_tokens: need.input_tokens + u64::from(need.output_tokens),
            reserved_cost: self.worst_cost(choice.provider.name(), &choice.model, &need),
        };
        let call = ModelCall {
            provider: choice.provider,
            model: choice.model,
            body,
            answers: match &agent.request {
                Some(_) => Answers::Whole,
                None if agent.schema.is_some() => Answers::Json,
                None => Answers::Text,
            },
            question: Box::new(Question {
                wanted,
                need,
                key: choice.key,
                avoid,
                is_repeatable: start.is_repeatable,
            }),
        };
        Ok(Prepared::Start { intent, launch: Some(start.launch(EffectWork::Model(call))) })
    }

    /// Where this run's conversations may travel at most: by its own word and by its tenant's.
    fn privacy(&self) -> Privacy {
        let tenant = &self.run.stream.tenant;
        self.run.state.privacy.max(self.shared.models.privacy_of(tenant))
    }

    fn worst_cost(
        &self,
        provider: &str,
        model: &str,
        need: &Need,
    ) -> Option<convergio_domain::money::Money> {
        use convergio_domain::metering::{Meter, Usage};
        let out = (Meter::OutText, u64::from(need.output_tokens));
        let usage = Usage([(Meter::InFresh, need.input_tokens), out].into());
        let charge = self.shared.prices.charge(provider, model, self.shared.now(), &usage)?;
        Some(charge.amount)
    }

    fn ask(
        &mut self,
        plan: &mut Plan,
        approval: &Approval,
        scope: &Scope,
    ) -> Result<Prepared, OutputError> {
        let shown = Value::String(approval.show.clone());
        let content = expr::render_value(&shown, scope).map_err(|error| failed(&error))?;
        // Serialising a JSON value into memory cannot fail: its keys are strings.
        let bytes = serde_json::to_vec(&content).unwrap_or_default();
        let content_hash = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let intent = Intent::Ask {
            approval: ApprovalId(Uuid::now_v7()),
            role: approval.role.clone(),
            content: plan.store(bytes, "application/json", Purpose::Output),
            content_hash,
            expires: approval.ttl.map(|ttl| self.shared.now().after(ttl)),
        };
        Ok(Prepared::Start { intent, launch: None })
    }

    /// What the run yields.
    pub(super) async fn output(&mut self, plan: &Plan) -> Result<Option<Value>, OutputError> {
        let graph = Arc::clone(&self.graph);
        let Some(output) = &graph.graph.output else { return Ok(None) };
        let needs = expr::nodes_in_value(output);
        let scope = self.outputs.scope(&self.run.state, &graph, &needs, plan.extra()).await?;
        expr::render_value(output, &scope).map(Some).map_err(|error| failed(&error))
    }
}

/// A step about to start.
struct Start<'a> {
    step: &'a StepId,
    attempt: u32,
    timeout: Duration,
    is_repeatable: bool,
}

impl Start<'_> {
    fn launch(&self, work: EffectWork) -> Launch {
        Launch { step: self.step.clone(), attempt: self.attempt, timeout: self.timeout, work }
    }
}

fn tool_call(start: Start<'_>, tool: &Tool, scope: &Scope) -> Result<Prepared, OutputError> {
    let args = expr::render_value(&tool.with, scope).map_err(|error| failed(&error))?;
    let work = EffectWork::Tool { name: tool.name.clone(), args };
    Ok(Prepared::Start { intent: Intent::Compute, launch: Some(start.launch(work)) })
}

fn choose(branch: &Branch, scope: &Scope) -> Result<Prepared, OutputError> {
    let mut taken = branch.cases.len();
    for (index, case) in branch.cases.iter().enumerate() {
        if expr::holds(&case.when, scope).map_err(|error| failed(&error))? {
            taken = index;
            break;
        }
    }
    Ok(Prepared::Instant(DoneResult::Chosen(u32::try_from(taken).unwrap_or(u32::MAX))))
}

/// What an agent asks, its templates rendered.
fn asked(agent: &Agent, scope: &Scope) -> Result<ChatRequest, OutputError> {
    if let Some(template) = &agent.request {
        let value = expr::render_value(&Value::String(template.clone()), scope);
        let value = value.map_err(|error| failed(&error))?;
        return ask::of_value(agent, value).map_err(OutputError::Failure);
    }
    let system = agent.system.as_deref().map(|text| expr::render_text(text, scope)).transpose();
    let system = system.map_err(|error| failed(&error))?;
    let prompt = expr::render_text(&agent.prompt, scope).map_err(|error| failed(&error))?;
    Ok(ask::of_prompt(agent, system, prompt))
}

fn failed(error: &ExprError) -> OutputError {
    OutputError::Failure(Failure {
        code: "template.invalid".into(),
        message: error.to_string(),
        retryable: false,
    })
}

fn invalid(message: &str) -> Failure {
    Failure { code: "graph.invalid".into(), message: message.into(), retryable: false }
}
