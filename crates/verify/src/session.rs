//! The sessions of a comparison: how they are set up on either side.

use relevo_connect::{ConnInfo, ReplicaRole, SessionSettings, SqlSession, act_as_replica, connect_sql};
use relevo_model::{FlowName, Side};

use crate::VerifyError;

/// A session that reads values as the stream sends them. Rows that a policy hides are an error, not missing.
pub(crate) async fn reading(info: &ConnInfo, side: Side, flow: &FlowName) -> Result<SqlSession, VerifyError> {
    let settings = SessionSettings::for_values(format!("{}_verify", flow.slot())).with("row_security", "off");
    Ok(connect_sql(info, side, &settings).await?)
}

/// A session that writes the target as whoever applies does: foreign keys and ordinary triggers do not fire.
pub(crate) async fn writing(info: &ConnInfo, flow: &FlowName) -> Result<SqlSession, VerifyError> {
    let settings = SessionSettings::for_values(format!("{}_repair", flow.slot()))
        .with("row_security", "off")
        .with("default_transaction_read_only", "off");
    let session = connect_sql(info, Side::Target, &settings).await?;
    let refused = VerifyError::sql(Side::Target, "setting session_replication_role");
    act_as_replica(&session, ReplicaRole::Session).await.map_err(refused)?;
    Ok(session)
}
