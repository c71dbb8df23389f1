//! What follows from a recipe's class: the four steps.

use super::recipe::{Class, Recipe};
use super::send::{Asked, statuses};
use super::turn::Turn;
use crate::admin;
use crate::error::{Code, Error, Result, Which};
use crate::kind::{Rotation, Versions};
use crate::secret::{Exposed, Secret, SecretText, wipe};

fn changed(secret: &Secret, changes: &[(String, SecretText)]) -> Secret {
    let changes = changes.iter().map(|(name, text)| (name.as_str(), SecretText::from(text.expose().to_owned())));
    secret.with(changes.collect())
}

impl Recipe {
    pub(super) async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        self.check(current.expose())?;
        match self.class {
            Class::Chosen => {
                let turn = if self.coexists() {
                    let turn = Turn::new(self, rotation, &[current]).await?;
                    turn.sweep(current, None).await?;
                    turn
                } else {
                    // What setSecret will want is missed before anything is staged.
                    if self.root.get("admin").is_some() {
                        admin::named(current)?
                            .ok_or_else(|| Error::config(Code::Field, "field \"adminarn\" is missing"))?;
                    }
                    Turn::with(self, rotation, &[current], None)?
                };
                let turned = changed(current, &turn.turned(current).await?);
                Ok(changed(&turned, &turn.chosen(&turned)?))
            }
            Class::Minted => {
                let turn = Turn::new(self, rotation, &[current]).await?;
                turn.sweep(current, None).await?;
                self.minted(&turn, current).await
            }
            Class::Slots => {
                let turn = Turn::new(self, rotation, &[current]).await?;
                let turned = changed(current, &turn.turned(current).await?);
                self.minted(&turn, &turned).await
            }
            Class::InPlace => {
                let turn = Turn::new(self, rotation, &[current]).await?;
                // A key that is dead already must not be used to make another: some services take that for a theft, and
                // revoke what the first use has made.
                turn.verify(current, Which::Current).await.map_err(|error| {
                    if !error.is_rejected() { return error }
                    error.hint("an earlier rotation may have lost the service's answer, and the new key with it: make a key by hand and put it into the secret")
                })?;
                self.minted(&turn, current).await
            }
            Class::Staged => {
                let message = format!("a person makes this key: {}", self.text("by_hand").unwrap_or_default());
                Err(Error::config(Code::ByHand, message).hint(format!(
                    "stage it, with all fields of the secret: `aws secretsmanager put-secret-value --secret-id {} --client-request-token {} --version-stages AWSPENDING --secret-string file://…`; the next try of this rotation goes on with it",
                    rotation.secret, rotation.token
                )))
            }
        }
    }

    pub(super) async fn minted(&self, turn: &Turn<'_>, secret: &Secret) -> Result<Secret> {
        let request = &self.root["create"];
        // Where `read` does not tell the slots, it tells what the new key is to be like.
        let before = match self.root.get("read").filter(|read| read.get("holds").is_none()) {
            Some(read) => vec![("before", turn.before(secret, read, Vec::new()).await?)],
            None => Vec::new(),
        };
        let context = turn.context(secret, before)?;
        turn.rotation().changing();
        let asked = Asked { name: "create", request, which: turn.which() };
        let answer = turn.session.ask(asked, &context, &[]).await?;
        let mut answer = answer.map(|it| it.json()).transpose()?.unwrap_or_default();
        let taken = turn.take(&answer, request, &context);
        wipe(&mut answer);
        Ok(changed(secret, &taken?))
    }

    pub(super) async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        let Versions { current, pending, .. } = versions;
        self.check(pending.expose())?;
        if self.class != Class::Chosen {
            let turn = Turn::with(self, rotation, &[pending], None)?;
            return turn.known(pending, turn.within()).await;
        }
        let turn = Turn::new(self, rotation, &[pending, current]).await?;
        let mut more = vec![("current", self.seen(current.expose()))];
        if let Some(read) = self.root.get("read") {
            let before = turn.before(pending, read, more.clone()).await?;
            more.push(("before", before));
        }
        let request = &self.root["set"];
        let context = turn.context(pending, more)?;
        rotation.changing();
        let asked = Asked { name: "set", request, which: turn.which() };
        match turn.session.ask(asked, &context, &statuses(request, "exists")).await {
            // Who changes its own password has done so already, if the new one works.
            Err(error) if error.is_rejected() && turn.which() == Which::Current => {
                turn.verify(pending, Which::Pending).await.map_err(|_| error)
            }
            // A further key may be there from an earlier try, and not every service has a status for that.
            Err(error) if self.coexists() && !error.is_rejected() => {
                turn.verify(pending, Which::Pending).await.map_err(|_| error)
            }
            Err(error) => Err(error),
            Ok(_) => turn.known(pending, turn.within()).await,
        }
    }

    pub(super) async fn revoke(&self, rotation: &Rotation<'_>, retired: &Secret) -> Result<()> {
        if self.revokes().is_empty() {
            return Ok(());
        }
        let turn = Turn::new(self, rotation, &[retired]).await?;
        let mut id = turn.id_of(retired, None)?;
        if id.is_none() {
            let listed = turn.listed(retired).await?;
            id = turn.id_of(retired, listed.as_deref())?;
        }
        if let Some(id) = id {
            return turn.withdraw(retired, &id).await;
        }
        let why = match self.id_field() {
            Some(field) => format!("its secret has no \"{field}\""),
            None => "the service's list does not have it".to_owned(),
        };
        rotation.note(format!("the key before this one is not withdrawn: {why}"));
        Ok(())
    }

    /// Whether two values of the secret are for keys of the same owner at the same service.
    pub(super) fn same_owner(&self, left: Exposed<'_>, right: Exposed<'_>) -> bool {
        let rotated = |name: &str| self.rotated().any(|it| it == name) || self.other().as_deref() == Some(name);
        self.fields.iter().filter(|field| !rotated(&field.name)).all(|field| left.same(right, &field.name))
    }
}
