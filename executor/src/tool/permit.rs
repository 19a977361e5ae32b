//! Whether a tool may be called: the kernel's verdict over what was allowed.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::platform_text;
use convergio_kernel_c::{Effects, Permission, Verdict};

/// Checks that a tool is among those allowed: names, or beginnings followed by `*`. What nobody
/// allowed is denied.
///
/// # Errors
/// `tool.denied`.
pub fn permit(allowed: &[String], name: &str) -> Result<(), UnsealedFailure> {
    let effects = Effects::default();
    let rule = |tools| Permission { tools, effects, verdict: Verdict::Allow };
    let rules: Vec<Permission<'_>> = allowed.iter().map(|tools| rule(tools.as_str())).collect();
    match convergio_kernel_c::permit(&rules, name, effects) {
        Ok((Verdict::Allow, _)) => Ok(()),
        _ => Err(UnsealedFailure::new(
            "tool.denied",
            platform_text!("the tool is not among those that may be called here"),
        )),
    }
}
