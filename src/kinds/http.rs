//! Credentials of anything with an HTTP API, by recipes: data that say how a key is made, found, proven and withdrawn.
//!
//! A recipe names one of five classes, by who makes the value and how many values may be valid at a time; what follows from
//! the class is here, once. The recipes in `recipes/` are compiled in and are kinds of their own; a secret of kind `http`
//! brings its own.

mod classes;
mod format;
mod own;
mod rabbitmq;
mod recipe;
mod send;
mod template;
mod turn;

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

pub use self::format::schema;
pub(super) use self::own::Own;
pub(super) use self::rabbitmq::RabbitMq;
use self::recipe::{Class, Recipe, scalar};
use self::turn::Turn;
use crate::error::{Class as Failure, Code, Error, Result};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::secret::Secret;
use crate::tls::SSLROOTCERT;

/// Name, names and text of every recipe that is compiled in, without the examples that its file ends with.
pub const RECIPES: &[(&str, &[&str], &str)] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// Another host of the service may learn of the key later than the one that setSecret asked.
const STILL_KNOWN_WITHIN: Duration = Duration::from_secs(3);

/// The compiled-in recipe of this name; or the one that a secret brought.
pub(super) struct Provider {
    names: &'static [&'static str],
    text: &'static str,
    recipe: OnceLock<Recipe>,
    told: OnceLock<Told>,
}

/// What documentation and hints are made of. Built when it is first asked for, and then kept.
struct Told {
    summary: &'static str,
    example: &'static str,
    fields: &'static [Field],
    permissions: &'static [&'static str],
}

/// The kinds of the compiled-in recipes.
pub(super) fn providers() -> impl Iterator<Item = &'static dyn Kind> {
    RECIPES.iter().map(|(_, names, text)| {
        let provider: &'static Provider =
            Box::leak(Box::new(Provider { names, text, recipe: OnceLock::new(), told: OnceLock::new() }));
        provider as &dyn Kind
    })
}
impl Provider {
    /// # Errors
    /// Internal: the recipes that come with the program are tested.
    fn recipe(&self) -> Result<&Recipe> {
        if self.recipe.get().is_none() {
            let recipe = Recipe::read(self.text, true).map_err(|why| {
                let name = self.names.first().unwrap_or(&"");
                Error::new(Failure::Internal, Code::Recipe, format!("the recipe {name} cannot be used: {why}"))
            })?;
            let _ = self.recipe.set(recipe);
        }
        self.recipe.get().ok_or_else(|| Error::new(Failure::Internal, Code::Recipe, "there is no recipe"))
    }

    fn told(&self) -> &Told {
        self.told.get_or_init(|| match self.recipe() {
            Ok(recipe) => Told::of(recipe, self.names.first().copied().unwrap_or_default()),
            Err(_) => Told { summary: "", example: "{}", fields: &[], permissions: &[] },
        })
    }
}

fn kept(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

impl Told {
    fn of(recipe: &Recipe, name: &str) -> Self {
        let credential = recipe.credential();
        let mut fields: Vec<Field> = Vec::new();
        for described in &recipe.fields {
            let required = described.required || described.name == credential;
            let default = described.default.as_ref().and_then(scalar);
            let mut field = if required {
                Field::required(kept(&described.name), kept(&described.doc))
            } else {
                Field::setting(kept(&described.name), kept(&described.doc))
            };
            field.mounted = required || described.rotated;
            field.number = described.number;
            field.default = default.as_deref().map(kept);
            fields.push(field);
        }
        if let Some(other) = recipe.other() {
            let doc =
                "the other of two that take turns; without it there is one, whose old credential ends with the change";
            fields.push(Field::setting(kept(&other), doc));
        }
        let mut example = Map::new();
        example.insert("kind".to_owned(), name.into());
        example.extend(recipe.root.get("example").and_then(Value::as_object).cloned().unwrap_or_default());
        if recipe.root.get("admin").is_some() {
            fields.push(Field::setting("adminarn", "ARN of the secret of an administrator; also `masterarn`"));
            example.insert(
                "adminarn".to_owned(),
                json!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:admin-AbCdEf"),
            );
        }
        fields.extend([NETWORK, SSLROOTCERT]);
        let permissions = recipe.root.get("permissions").and_then(Value::as_array);
        let permissions: Vec<_> = permissions.into_iter().flatten().filter_map(Value::as_str).map(kept).collect();
        Self {
            summary: kept(recipe.text("summary").unwrap_or_default()),
            example: kept(&Value::Object(example).to_string()),
            fields: Box::leak(fields.into_boxed_slice()),
            permissions: Box::leak(permissions.into_boxed_slice()),
        }
    }
}

const NETWORK: Field =
    Field::setting("network", "`public` (the default), or `private`, which allows private addresses, and http to them");

#[async_trait]
impl Kind for Provider {
    fn names(&self) -> &'static [&'static str] {
        self.names
    }

    fn summary(&self) -> &'static str {
        self.told().summary
    }

    fn example(&self) -> &'static str {
        self.told().example
    }

    fn fields(&self) -> &'static [Field] {
        self.told().fields
    }

    fn permissions(&self) -> &'static [&'static str] {
        self.told().permissions
    }

    fn rotates(&self, _rotation: &Rotation<'_>, _current: &Secret) -> Result<Vec<String>> {
        let recipe = self.recipe()?;
        Ok(recipe.rotated().map(str::to_owned).chain(recipe.other()).collect())
    }

    fn mints(&self) -> bool {
        self.recipe().is_ok_and(|recipe| recipe.class != Class::Chosen || recipe.coexists())
    }

    /// A key of another owner was put there by hand, and one that both hold is in use.
    fn retires(&self, _rotation: &Rotation<'_>, current: &Secret, previous: &Secret) -> Result<bool> {
        let recipe = self.recipe()?;
        let (current, previous) = (current.expose(), previous.expose());
        let shared = |name: &str| current.value(name).is_some() && current.same(previous, name);
        let id = recipe.id_field().is_some_and(shared);
        Ok(!id && !shared(recipe.credential()) && recipe.same_owner(current, previous))
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        self.recipe()?.create(rotation, current).await
    }

    async fn clear(&self, rotation: &Rotation<'_>, current: &Secret, pending: &Secret) -> Result<()> {
        let recipe = self.recipe()?;
        if recipe.class != Class::Minted && !recipe.coexists() {
            return Ok(());
        }
        Turn::new(recipe, rotation, &[current, pending]).await?.sweep(current, Some(pending)).await
    }

    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        self.recipe()?.set(rotation, versions).await
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        let recipe = self.recipe()?;
        recipe.check(pending.expose())?;
        let turn = Turn::with(recipe, rotation, &[pending], None)?;
        turn.known(pending, turn.within().min(STILL_KNOWN_WITHIN)).await
    }

    async fn revoke(&self, rotation: &Rotation<'_>, retired: &Secret) -> Result<()> {
        self.recipe()?.revoke(rotation, retired).await
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_can_be_read() {
        for (name, _, text) in RECIPES {
            let recipe = Recipe::read(text, true).unwrap_or_else(|why| panic!("{name}: {why}"));
            let permissions = recipe.root.get("permissions").and_then(Value::as_array).into_iter().flatten();
            for action in permissions.filter_map(Value::as_str) {
                assert!(Own.permissions().contains(&action), "{name}: {action}, which the template does not give");
            }
            for key in ["docs", "checked", "example", "prefer"] {
                assert!(recipe.root.get(key).is_some(), "{name} has no `{key}`");
            }
            let file = format!("{}/src/kinds/http/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let whole: Value = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
            assert!(whole["exchange"].is_array() && recipe.root.get("exchange").is_none(), "{name}");
            let recipes = Recipe::of(whole, true).map(drop);
            assert!(recipes.is_ok(), "{name}: {recipes:?}");
        }
    }
}
