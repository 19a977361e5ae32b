//! Permission to call a tool, decided by the kernel over an allow list.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::platform_text;
use convergio_kernel_c::{Effects, Permission, PermitVerdict};

/// Checks that a tool is on an allow list of names and of prefixes that end in `*`. A tool that is
/// not listed is denied.
///
/// # Errors
/// `tool.denied`: no entry matches.
pub fn check_permission(allowed: &[String], name: &str) -> Result<(), UnsealedFailure> {
    // Permission goes by name alone here, so no effects are declared.
    let effects = Effects::default();
    let rule = |tools| Permission { tools, effects, verdict: PermitVerdict::Allow };
    let rules: Vec<Permission<'_>> = allowed.iter().map(|tools| rule(tools.as_str())).collect();
    match convergio_kernel_c::permit_call(&rules, name, effects) {
        Ok((PermitVerdict::Allow, _)) => Ok(()),
        _ => Err(UnsealedFailure::new(
            "tool.denied",
            platform_text!("the tool is not among those that may be called here"),
        )),
    }
}
