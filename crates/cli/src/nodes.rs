//! Which flow a command is about when the configuration file names nodes: who the primary is stands in the databases.

use relevo_handover::{Claim, Observed, Stand, observe, stand};

use crate::args::FlowArgs;
use crate::error::CliError;
use crate::settings::{File, Standing};

/// Lets the file name the two databases of the flow that is meant, if it names nodes and the options name none.
///
/// # Errors
/// [`CliError::Usage`]: it is not clear which standby is meant; [`CliError::Failed`]: nobody says who the primary is.
pub async fn resolve(mut file: File, args: &FlowArgs) -> Result<File, CliError> {
    if !file.has_nodes() || args.source.is_some() || args.target.is_some() {
        return Ok(file);
    }
    let cluster = file.cluster()?;
    if let Some(node) = args.node.as_deref().filter(|node| !cluster.nodes.contains_key(*node)) {
        return Err(file.no_such_node(node));
    }
    let observed = observe(&cluster).await;
    let (primary, epoch) = primary(&observed)?;
    let standbys: Vec<&str> = cluster.others(&primary).collect();
    let node = match (args.node.as_deref().filter(|node| *node != primary), standbys.as_slice()) {
        (Some(node), _) => node.to_owned(),
        (None, [only]) => (*only).to_owned(),
        (None, _) => {
            return Err(CliError::usage(format!(
                "{primary} is the primary, and there are several standbys: say which is meant, --node {}",
                standbys.join(" or --node ")
            ))
            .of_kind("ambiguous_flow"));
        }
    };
    file.flow_into(&cluster, &primary, &node)?;
    let node = args.node.clone().unwrap_or(node);
    file.set_standing(Standing { node, primary, epoch });
    Ok(file)
}

/// Who the primary is, and since which epoch, by the highest epoch of all that answer.
///
/// # Errors
/// [`CliError::Failed`]: nobody says; [`CliError::Refused`]: two claim it.
pub fn primary(observed: &Observed) -> Result<(String, u64), CliError> {
    let claims: Vec<Claim> = observed.claims();
    match stand("", None, &claims) {
        Stand::Standby { primary, epoch } => Ok((primary, epoch)),
        Stand::Contested { epoch, claimants } => Err(CliError::refused(format!(
            "{} claim the role of the primary in epoch {epoch}: relevo failover --to NODE --force decides",
            claimants.join(" and ")
        ))
        .of_kind("contested_role")),
        Stand::Primary { .. } | Stand::Stale { .. } | Stand::Unknown => Err(CliError::failed(format!(
            "no node says who the primary is: relevo init --primary NAME says it once{}",
            silent(observed)
        ))
        .of_kind("no_primary")),
    }
}

/// Who does not answer, for a message.
fn silent(observed: &Observed) -> String {
    let mut text = String::new();
    for (node, sight) in &observed.nodes {
        if let relevo_handover::Sight::Unreachable(reason) = sight {
            text.push_str(&format!("; {node}: {reason}"));
        }
    }
    text
}
