//! The end of an API key, at once and for ever.

use super::{Pass, ProjectError, Roster, rules};

impl Roster {
    /// Revokes the API key of this id; `false` when it was over before. The last one that keeps the project
    /// from losing its data is revoked only by `force`.
    ///
    /// # Errors
    /// [`ProjectError`]; nothing has changed then.
    pub(super) async fn revoke(
        &self,
        by: &Pass,
        id: &str,
        force: bool,
    ) -> Result<bool, ProjectError> {
        let decide = |entry: &mut _, now| rules::revoke(entry, id, now, force);
        let was_good = self.change(by, decide).await?;
        let (project, by) = (by.project.name.as_str(), &by.key_id);
        tracing::info!(
            project,
            by,
            api_key = id,
            was_good,
            force,
            "API key revoked"
        );
        Ok(was_good)
    }
}
