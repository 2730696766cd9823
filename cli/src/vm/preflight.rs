//! What would keep a VM from running here, found before anything is made: first what was asked for, then
//! what this host has.

use super::build::{Plan, needs_kernel};
use super::config;
use super::daemons::{check_flavor, find_virtiofsd, flavor_of};
use super::spec::{NetSpec, VmSpec};
use crate::failure::{Failure, Result};
use crate::paths::Paths;
use crate::provider::local::{
    image, kvm_refusal, look_at_kvm, memory_available, namespaces, need_cloud_hypervisor, need_nft,
};

/// Checks all of it.
pub(crate) async fn check(paths: &Paths, plan: &Plan) -> Result<()> {
    let spec = &plan.spec;
    asked(spec)?;
    for reference in plan.images() {
        image::find(paths, reference)?;
    }
    need_cloud_hypervisor(&paths.programs())?;
    // A kernel of the user's own may be one that any KVM runs.
    if needs_kernel(spec)
        && let Some(refusal) = kvm_refusal(&look_at_kvm())
    {
        return Err(refusal);
    }
    memory(spec.memory)?;
    if !spec.shares.is_empty() {
        let program = find_virtiofsd(&paths.programs())?;
        let read_only = spec.shares.iter().any(|share| share.read_only);
        check_flavor(&program, flavor_of(&program).await?, read_only)?;
    }
    if matches!(spec.net, Some(NetSpec::User { .. })) {
        need_nft()?;
        namespaces().await?;
    }
    Ok(())
}

fn asked(spec: &VmSpec) -> Result<()> {
    for (index, share) in spec.shares.iter().enumerate() {
        let mut before = spec.shares.iter().take(index);
        if before.any(|other| other.tag == share.tag) {
            let tag = &share.tag;
            return Err(Failure::usage(format!("two shares have the tag {tag}")));
        }
    }
    match knest_vmm::validate::problems(&config::render(spec)).first() {
        None => Ok(()),
        Some(problem) => Err(Failure::usage(format!("the VM: {problem}"))),
    }
}

fn memory(wanted: u64) -> Result<()> {
    let available = memory_available()?;
    if wanted <= available {
        return Ok(());
    }
    Err(Failure::host(format!(
        "the VM wants {} MiB of memory, and {} MiB are available",
        wanted >> 20,
        available >> 20
    ))
    .hint("ask for less with --memory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::spec::testing::spec;

    #[test]
    fn what_was_asked_for() {
        let mut vm = spec();
        assert!(asked(&vm).is_ok());
        vm.shares.push(vm.shares[0].clone());
        assert!(asked(&vm).unwrap_err().to_string().contains("tag srv"));
        vm.shares.clear();
        vm.cpus = 0;
        assert!(asked(&vm).unwrap_err().to_string().contains("boot_vcpus"));
    }

    #[test]
    fn more_memory_than_there_is() {
        assert!(memory(1 << 20).is_ok());
        assert!(memory(u64::MAX).is_err());
    }
}
