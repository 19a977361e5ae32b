//! Collects the names that a CEL condition uses, and bounds its loops, by a walk over its syntax
//! tree.

use cel::Program;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators,
};

use super::error::ExprError;
use super::expr_refs::ExprRefs;
use super::token_scan::NODE_BY_NAME;

/// Returns the names that a program uses. The recursion is as deep as the condition has operators,
/// which are limited before it is compiled.
///
/// # Errors
/// A loop within a loop, or `nodes` without the name of a node.
pub(super) fn collect_program_refs(program: &Program) -> Result<ExprRefs, ExprError> {
    let mut walk = ConditionRefWalk::default();
    walk.walk_expression(program.expression())?;
    Ok(walk.refs)
}

#[derive(Default)]
struct ConditionRefWalk {
    refs: ExprRefs,
    /// Variables of the enclosing loops.
    loop_variables: Vec<String>,
    loops: usize,
}

impl ConditionRefWalk {
    fn walk_expression(&mut self, node: &IdedExpr) -> Result<(), ExprError> {
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.add_outer_variable(name),
            Expr::Select(select) if is_nodes_variable(&select.operand) => {
                self.refs.add_node(&select.field, 1);
                // `nodes` is counted as a variable too, as the template scanner does.
                self.refs.add_variable("nodes", 1);
                Ok(())
            }
            Expr::Select(select) => self.walk_expression(&select.operand),
            Expr::Call(call) => self.walk_call(call),
            Expr::Comprehension(comprehension) => self.walk_comprehension(comprehension),
            Expr::List(list) => {
                list.elements.iter().try_for_each(|item| self.walk_expression(item))
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.walk_entry(&entry.expr)),
            Expr::Struct(fields) => {
                fields.entries.iter().try_for_each(|entry| self.walk_entry(&entry.expr))
            }
        }
    }

    fn add_outer_variable(&mut self, name: &str) -> Result<(), ExprError> {
        if name == "nodes" {
            return Err(ExprError::new(NODE_BY_NAME));
        }
        let is_inner =
            name.starts_with('@') || self.loop_variables.iter().any(|bound| bound == name);
        if !is_inner {
            self.refs.add_variable(name, 1);
        }
        Ok(())
    }

    fn walk_call(&mut self, call: &CallExpr) -> Result<(), ExprError> {
        if let (operators::INDEX, [operand, index]) = (call.func_name.as_str(), &call.args[..])
            && is_nodes_variable(operand)
        {
            let Expr::Literal(LiteralValue::String(name)) = &index.expr else {
                return Err(ExprError::new(NODE_BY_NAME));
            };
            self.refs.add_node(name.inner(), 1);
            return Ok(());
        }
        let target = call.target.as_deref();
        target.into_iter().chain(&call.args).try_for_each(|item| self.walk_expression(item))
    }

    /// Walks a loop, whose own variables are not the run's. Nested loops multiply the work: one
    /// level is enough for a condition.
    fn walk_comprehension(&mut self, inner: &ComprehensionExpr) -> Result<(), ExprError> {
        // The list itself is outside of the loop: it may contain another loop's result.
        self.walk_expression(&inner.iter_range)?;
        self.walk_expression(&inner.accu_init)?;
        if self.loops > 0 {
            let message = "CEL: a loop (all, exists, map, filter) within a loop is not allowed";
            return Err(ExprError::new(message));
        }
        let names = [Some(&inner.iter_var), inner.iter_var2.as_ref(), Some(&inner.accu_var)];
        let before = self.loop_variables.len();
        self.loop_variables.extend(names.into_iter().flatten().cloned());
        self.loops += 1;
        let parts = [&inner.loop_cond, &inner.loop_step, &inner.result];
        let walked = parts.into_iter().try_for_each(|part| self.walk_expression(part));
        self.loops -= 1;
        self.loop_variables.truncate(before);
        walked
    }

    fn walk_entry(&mut self, entry: &EntryExpr) -> Result<(), ExprError> {
        match entry {
            EntryExpr::StructField(field) => self.walk_expression(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.walk_expression(&entry.key)?;
                self.walk_expression(&entry.value)
            }
        }
    }
}

fn is_nodes_variable(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::Ident(name) if name == "nodes")
}
