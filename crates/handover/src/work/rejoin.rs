//! Giving an old primary back to the cluster.
use super::Run;
use crate::HandoverError;

impl Run<'_> {
    pub(super) async fn salvage(&mut self, node: &str, _primary: &str) -> Result<(), HandoverError> {
        Err(HandoverError::Waited(format!("{node}")))
    }
    pub(super) async fn undo(&mut self, node: &str, _primary: &str) -> Result<(), HandoverError> {
        Err(HandoverError::Waited(format!("{node}")))
    }
    pub(super) async fn restore(&mut self, node: &str, _primary: &str) -> Result<(), HandoverError> {
        Err(HandoverError::Waited(format!("{node}")))
    }
}
