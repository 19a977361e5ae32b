//! Jobs and results as bytes between processes: `MessagePack`, which keeps integers and floats
//! apart.

use std::io::{Read, Write};
use std::sync::Arc;

use convergio_domain::expr::{ExprError, NodeView, Scope};
use convergio_domain::graph::Mistake;
use convergio_domain::graph::manifest::Graph;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{Answer, Job, ParsedManifest};

/// Error of bytes that are no job or result.
pub(crate) type WireError = Box<dyn std::error::Error + Send + Sync>;

// These mirror the public types: what is sent must not change with them, and is written without a
// copy.
#[derive(Serialize)]
enum JobOut<'a> {
    Value { template: &'a Value, scope: ScopeOut<'a> },
    Texts { templates: &'a [String], scope: ScopeOut<'a> },
    Conditions { conditions: &'a [String], scope: ScopeOut<'a> },
    Check { schema: &'a Value, value: &'a Value },
    Manifest { text: &'a str },
}

#[derive(Serialize)]
struct ScopeOut<'a> {
    inputs: &'a Value,
    nodes: Vec<(&'a str, &'a str, Option<&'a Value>)>,
    item: Option<(&'a Value, u32)>,
}

impl<'a> ScopeOut<'a> {
    fn of(scope: &'a Scope) -> Self {
        let nodes = scope.nodes.iter();
        let nodes = nodes.map(|(id, view)| (id.as_str(), view.status, view.output.as_deref()));
        let item = scope.item.as_ref().map(|(item, index)| (item, *index));
        Self { inputs: &scope.inputs, nodes: nodes.collect(), item }
    }
}

/// Serialises a job; the same bytes give the job its digest.
pub(crate) fn write_job(job: &Job, to: &mut impl Write) -> Result<(), WireError> {
    let out = match job {
        Job::Value { template, scope } => JobOut::Value { template, scope: ScopeOut::of(scope) },
        Job::Texts { templates, scope } => JobOut::Texts { templates, scope: ScopeOut::of(scope) },
        Job::Conditions { conditions, scope } => {
            JobOut::Conditions { conditions, scope: ScopeOut::of(scope) }
        }
        Job::Check { schema, value } => JobOut::Check { schema, value },
        Job::Manifest { text } => JobOut::Manifest { text },
    };
    Ok(rmp_serde::encode::write_named(to, &out)?)
}

#[derive(Deserialize)]
enum JobIn {
    Value { template: Value, scope: ScopeIn },
    Texts { templates: Vec<String>, scope: ScopeIn },
    Conditions { conditions: Vec<String>, scope: ScopeIn },
    Check { schema: Value, value: Value },
    Manifest { text: String },
}

#[derive(Deserialize)]
struct ScopeIn {
    inputs: Value,
    nodes: Vec<(String, String, Option<Value>)>,
    item: Option<(Value, u32)>,
}

impl ScopeIn {
    fn scope(self) -> Result<Scope, WireError> {
        let mut scope =
            Scope { inputs: Arc::new(self.inputs), item: self.item, ..Scope::default() };
        for (id, status, output) in self.nodes {
            let view = NodeView { status: status_of(&status), output: output.map(Arc::new) };
            scope.nodes.insert(id.parse()?, view);
        }
        Ok(scope)
    }
}

/// Interns a node's status as expressions see it.
fn status_of(name: &str) -> &'static str {
    match name {
        "completed" => "completed",
        "failed" => "failed",
        "skipped" => "skipped",
        _ => "pending",
    }
}

/// Deserialises a job in the worker.
pub(crate) fn read_job(from: impl Read) -> Result<Job, WireError> {
    Ok(match rmp_serde::from_read(from)? {
        JobIn::Value { template, scope } => {
            Job::Value { template: Arc::new(template), scope: scope.scope()? }
        }
        JobIn::Texts { templates, scope } => Job::Texts { templates, scope: scope.scope()? },
        JobIn::Conditions { conditions, scope } => {
            Job::Conditions { conditions, scope: scope.scope()? }
        }
        JobIn::Check { schema, value } => {
            Job::Check { schema: Arc::new(schema), value: Arc::new(value) }
        }
        JobIn::Manifest { text } => Job::Manifest { text },
    })
}

#[derive(Serialize, Deserialize)]
enum AnswerWire {
    Value(Result<Value, ErrorWire>),
    Texts(Result<Vec<String>, ErrorWire>),
    Condition(Result<usize, ErrorWire>),
    Mistakes(Vec<String>),
    /// The graph as its canonical manifest.
    Manifest(Result<(Value, Vec<Mistake>), Vec<Mistake>>),
}

#[derive(Serialize, Deserialize)]
struct ErrorWire {
    message: String,
    line: Option<usize>,
}

impl From<ExprError> for ErrorWire {
    fn from(ExprError { message, line }: ExprError) -> Self {
        Self { message, line }
    }
}

impl From<ErrorWire> for ExprError {
    fn from(ErrorWire { message, line }: ErrorWire) -> Self {
        Self { message, line }
    }
}

/// Serialises a result in the worker.
pub(crate) fn write_answer(answer: Answer) -> Result<Vec<u8>, WireError> {
    let wire = match answer {
        Answer::Value(value) => AnswerWire::Value(value.map_err(ErrorWire::from)),
        Answer::Texts(texts) => AnswerWire::Texts(texts.map_err(ErrorWire::from)),
        Answer::Condition(number) => AnswerWire::Condition(number.map_err(ErrorWire::from)),
        Answer::Mistakes(mistakes) => AnswerWire::Mistakes(mistakes),
        Answer::Manifest(Ok(ParsedManifest { graph, warnings })) => {
            AnswerWire::Manifest(Ok((serde_json::to_value(&graph)?, warnings)))
        }
        Answer::Manifest(Err(mistakes)) => AnswerWire::Manifest(Err(mistakes)),
    };
    Ok(rmp_serde::to_vec_named(&wire)?)
}

/// Deserialises a result in the pool.
pub(crate) fn read_answer(bytes: &[u8]) -> Result<Answer, WireError> {
    Ok(match rmp_serde::from_slice(bytes)? {
        AnswerWire::Value(value) => Answer::Value(value.map_err(ExprError::from)),
        AnswerWire::Texts(texts) => Answer::Texts(texts.map_err(ExprError::from)),
        AnswerWire::Condition(number) => Answer::Condition(number.map_err(ExprError::from)),
        AnswerWire::Mistakes(mistakes) => Answer::Mistakes(mistakes),
        AnswerWire::Manifest(Ok((graph, warnings))) => {
            let graph: Graph = serde_json::from_value(graph)?;
            Answer::Manifest(Ok(ParsedManifest { graph, warnings }))
        }
        AnswerWire::Manifest(Err(mistakes)) => Answer::Manifest(Err(mistakes)),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use convergio_domain::expr::{ExprError, NodeView, Scope};
    use serde_json::{Value, json};

    use super::{read_answer, read_job, write_answer, write_job};
    use crate::job::{Answer, Job};

    /// Numbers at the edges of what JSON has here.
    fn numbers() -> Value {
        json!([0, -1, i64::MIN, u64::MAX, 1.0, -0.0, 0.1, 1e300, 5e-324, 0.30000000000000004])
    }

    #[test]
    fn jobs_and_answers_are_what_they_were() {
        let output = Some(Arc::new(json!({"a": [null, true, "x"], "n": numbers()})));
        let view = NodeView { status: "completed", output };
        let scope = Scope {
            inputs: Arc::new(numbers()),
            nodes: [("n".parse().expect("a node"), view)].into(),
            item: Some((numbers(), 7)),
        };
        let template = Arc::new(json!({"x": "{{ inputs[8] }}", "n": numbers()}));
        let job = Job::Value { template, scope };
        let mut bytes = Vec::new();
        write_job(&job, &mut bytes).expect("written");
        let read = read_job(&bytes[..]).expect("read");
        assert_eq!(format!("{read:?}"), format!("{job:?}"));
        assert_eq!(read.print(), job.print());
        let error = ExprError { message: "no".into(), line: Some(3) };
        for answer in [Answer::Value(Ok(numbers())), Answer::Value(Err(error))] {
            let bytes = write_answer(answer.clone()).expect("written");
            assert_eq!(read_answer(&bytes).expect("read"), answer);
        }
    }
}
