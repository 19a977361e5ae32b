//! Work that may be done on the calling thread before it is handed to a worker process.

use super::error::ExprError;

/// Bytes that evaluation may still touch on the calling thread. Every bound of work is in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    remaining_bytes: u64,
}

impl Allowance {
    /// Allowance for work on a shared thread: a few milliseconds, whatever is done with the bytes.
    pub const IN_PLACE: Self = Self { remaining_bytes: 16 << 20 };

    /// Creates an allowance of `left` bytes.
    pub const fn of_bytes(left: u64) -> Self {
        Self { remaining_bytes: left }
    }

    /// Bytes that have not been taken.
    pub fn remaining_bytes(&self) -> u64 {
        self.remaining_bytes
    }

    /// Takes bytes from the allowance.
    ///
    /// # Errors
    /// [`BoundedEvalError::OverAllowance`] if fewer bytes are left; nothing is taken then.
    pub fn take_bytes(&mut self, bytes: u64) -> Result<(), BoundedEvalError> {
        self.remaining_bytes =
            self.remaining_bytes.checked_sub(bytes).ok_or(BoundedEvalError::OverAllowance)?;
        Ok(())
    }
}

/// Error of an evaluation within an allowance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundedEvalError {
    /// The expression has an error; more allowance would not help.
    Expression(ExprError),
    /// The work may exceed the allowance. The expression was not evaluated: a worker must do it.
    OverAllowance,
}

impl From<ExprError> for BoundedEvalError {
    fn from(error: ExprError) -> Self {
        Self::Expression(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::{
        ExprScope, NodeView, first_true_condition, first_true_condition_within, render_value,
        render_value_within,
    };
    use super::{Allowance, BoundedEvalError};

    fn scope(inputs: Value) -> ExprScope {
        let output = Some(Arc::new(json!({"list": [3, 1, 2], "text": "some words"})));
        let view = NodeView { status: "completed", output };
        let nodes = [("a".parse().expect("a node"), view)].into();
        ExprScope { inputs: Arc::new(inputs), nodes, item: Some((json!({"n": 1}), 0)) }
    }

    #[test]
    fn what_is_done_in_place_is_what_is_done_elsewhere() {
        let scope = scope(json!({"list": [{"a": 1}, {"a": 2}], "text": "x y", "none": null}));
        let templates = [
            "plain",
            "{{ inputs.text }}",
            "{{ inputs.list }}",
            "Say {{ inputs.text | upper }} to {{ nodes.a.output.text | replace('o', '0') }}!",
            "{% for item in inputs.list %}{{ loop.index }}: {{ item.a }}\n{% endfor %}",
            "{{ nodes.a.output.list | sort | join(', ') }}",
            "{{ inputs.list | map(attribute='a') | sum }}",
            "{{ inputs.list | groupby('a') | length }}",
            "{{ inputs.list | selectattr('a', 'gt', 1) | list | tojson }}",
            "{{ inputs.list | zip(nodes.a.output.list) | list }}",
            "{{ inputs.none | default('nothing') }}",
            "{{ inputs.absent }}",
            "{{ item.n ~ index }}",
            "{% if inputs.list | length > 1 %}many{% else %}few{% endif %}",
            "{{ inputs.text | split | last }}",
        ];
        for template in templates {
            let allowance = &mut Allowance::IN_PLACE.clone();
            let value = json!({"with": [template]});
            let here = render_value_within(&value, &scope, allowance);
            let there = render_value(&value, &scope).map_err(BoundedEvalError::Expression);
            assert_eq!(here, there, "{template}");
            assert!(allowance.remaining_bytes() > 4 << 20, "{template}: {allowance:?}");
        }
        for condition in [
            "inputs.list.size() == 2",
            "inputs.list.exists(x, x.a > 1) && inputs.text.startsWith('x')",
            "inputs.text.matches('^x y$')",
            "nodes.a.output.list.exists(x, x == 2)",
            "inputs.absent == 1",
        ] {
            let allowance = &mut Allowance::IN_PLACE.clone();
            let here = first_true_condition_within(&[condition], &scope, allowance);
            let there =
                first_true_condition(&[condition], &scope).map_err(BoundedEvalError::Expression);
            assert_eq!(here, there, "{condition}");
        }
    }

    #[test]
    fn what_may_be_dear_is_not_begun_in_place() {
        let list: Vec<u32> = (0..20_000).collect();
        let scope = scope(json!({"l": list, "t": "x".repeat(200_000)}));
        let dear = [
            "{% for i in range(100000) %}{{ inputs.l | sort | first }}{% endfor %}",
            "{{ inputs.t | replace('x', inputs.t) }}",
            "{{ inputs.l | map('string') | join(inputs.t) }}",
            "{{ inputs.l | map(attribute='x', default=inputs.t) | list | string }}",
            "{% for a in inputs.l %}{% for b in inputs.l %}{{ a }}{% endfor %}{% endfor %}",
        ];
        for template in dear {
            let template = json!(template);
            let here = render_value_within(&template, &scope, &mut Allowance::IN_PLACE.clone());
            assert_eq!(here, Err(BoundedEvalError::OverAllowance), "{template}");
        }
        let many = json!(vec!["{{ inputs.t ~ '' }}"; 2_000]);
        let here = render_value_within(&many, &scope, &mut Allowance::IN_PLACE.clone());
        assert_eq!(here, Err(BoundedEvalError::OverAllowance));
        for condition in [
            "inputs.l.map(x, inputs.t + 'a').size() > 0",
            "inputs.l.all(x, !inputs.t.contains('z'))",
            "inputs.l.map(x, [x, x]).map(y, y + y).size() > 0",
            "inputs.t.matches(inputs.t)",
            "'x'.matches('(a{1,1000}){1,1000}')",
        ] {
            let allowance = &mut Allowance::IN_PLACE.clone();
            let here = first_true_condition_within(&[condition], &scope, allowance);
            assert_eq!(here, Err(BoundedEvalError::OverAllowance), "{condition}");
        }
    }

    #[test]
    fn a_value_that_names_another_many_times_is_refused() {
        let scope = scope(json!({"t": "x".repeat(1 << 20)}));
        let error = render_value(&json!(vec!["{{ inputs.t }}"; 200]), &scope).expect_err("large");
        assert!(error.message.contains("yields more than"), "{error}");
    }
}
