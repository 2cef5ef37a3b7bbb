//! `relevo reset`: gives up what a flow has, so that the next `relevo run` copies anew. The way out of a lost slot.

use relevo_model::FlowName;
use relevo_source::{ExpectedSlot, Refusal, ReplicationConnection, SlotInfo, inspect_slot, verdict};
use relevo_state as state;

use crate::args::ResetArgs;
use crate::error::{CliError, NO_FLOW};
use crate::settings::File;
use crate::{connect, output};

/// Forgets the progress and drops the slot. The target's rows stay until the next copy replaces them.
///
/// # Errors
/// [`CliError::Refused`] while a Relevo runs the flow.
pub async fn run(args: &ResetArgs, file: &File) -> Result<(), CliError> {
    let settings = file.flow(&args.flow)?;
    let (source, mut target) = connect::both(&settings).await?;
    let failed = |error| CliError::catalog(&error);
    let source_facts = relevo_catalog::server(&source).await.map_err(failed)?;
    let target_facts = relevo_catalog::server(&target).await.map_err(failed)?;
    let flow = connect::flow_name(settings.name.as_ref(), &source_facts, &target_facts);
    let state_failed = |error| CliError::state(&error);
    let known = state::installed_version(&*target).await.map_err(state_failed)?.is_some()
        && state::flow(&*target, &flow).await.map_err(state_failed)?.is_some();
    if !known {
        return Err(CliError::failed(format!(
            "the target knows of no flow {flow}: there is nothing to reset"
        ))
        .of_kind(NO_FLOW));
    }
    for lock in [state::FlowLock::Copy, state::FlowLock::Rows, state::FlowLock::Apply] {
        if !state::try_lock(&*target, &flow, lock).await.map_err(state_failed)? {
            return Err(in_use(&flow));
        }
    }
    let slot = flow.slot();
    let found = inspect_slot(&source, &slot).await.map_err(|error| CliError::from_fault(&error))?;
    let foreign = found.as_ref().and_then(|found| foreign(found, &slot, &source_facts.database));
    if foreign.is_none() && found.as_ref().is_some_and(|slot| slot.active) {
        return Err(in_use(&flow));
    }
    let mut done = String::new();
    let would = if args.dry_run { "would be " } else { "" };
    if let Some(foreign) = foreign {
        done.push_str(&format!("the slot is left alone: {foreign}\n"));
    } else if found.is_some() {
        if !args.dry_run {
            let connection = ReplicationConnection::connect(&settings.source, &slot);
            let mut connection = connection.await.map_err(|error| CliError::from_fault(&error))?;
            connection.drop_slot(&slot, true).await.map_err(|error| CliError::from_fault(&error))?;
        }
        done.push_str(&format!("slot {slot} {would}dropped on the source\n"));
    }
    let tables = state::tables(&*target, &flow).await.map_err(state_failed)?.len();
    if !args.dry_run {
        state::forget_progress(&mut target, &flow).await.map_err(state_failed)?;
    }
    done.push_str(&format!("progress of flow {flow} {would}forgotten on the target\n"));
    done.push_str(&format!(
        "the next relevo run empties its {tables} tables on the target and copies them anew\n"
    ));
    output::print(&done)
}

/// Why the slot is not this flow's: then it is not ours to drop, although it has our name.
fn foreign(found: &SlotInfo, slot: &str, database: &str) -> Option<Refusal> {
    let expected = ExpectedSlot { name: slot.to_owned(), database: database.to_owned(), applied: None };
    verdict(Some(found), &expected).err().filter(|refusal| !matches!(refusal, Refusal::SlotLost { .. }))
}

fn in_use(flow: &FlowName) -> CliError {
    CliError::refused(format!(
        "a Relevo runs flow {flow} (it holds its lock or slot): stop it first; nothing was changed"
    ))
    .of_kind("flow_in_use")
}
