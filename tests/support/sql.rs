//! What the tests of databases share: secrets of logins and of administrators.

use keywheel::error::{Class, Code, Error};
use keywheel::store::memory::Payload;
use serde_json::Value;

use super::{SECRET, World};

pub const OLD: &str = "the old password";
pub const FOURTH: &str = "fourth-version-000000000000000000000";
/// The name of the administrator's secret, as `masterarn` has it.
pub const ADMIN: &str = "administrator";
const ADMIN_VERSION: &str = "administrator-version-00000000000000";

/// A world with one secret.
pub fn world(secret: &Value) -> World {
    World::new(&secret.to_string())
}

/// A world with one secret and its administrator's.
pub fn world_with_admin(secret: &Value, admin: &Value) -> World {
    let world = world(secret);
    world.service.create(ADMIN, ADMIN_VERSION, Some(Payload::Text(admin.to_string()))).unwrap();
    world
}

/// The secret with fields changed or added.
pub fn with(secret: &Value, changes: Value) -> Value {
    let mut secret = secret.clone();
    secret.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    secret
}

/// User name and password of a version.
pub fn login(world: &World, label: &str) -> (String, String) {
    (world.field(label, "username").unwrap(), world.field(label, "password").unwrap())
}

/// One more rotation.
pub async fn rotate_again(world: &World, token: &str) -> Result<(), Error> {
    world.service.begin_rotation(SECRET, token).unwrap();
    world.rotate(token).await
}

/// Runs createSecret and then `step`, which must fail with nothing promoted and no password told.
pub async fn failure(world: &World, step: &str) -> Error {
    if step != "createSecret" && world.value("AWSPENDING").is_none() {
        world.step("createSecret").await.unwrap();
    }
    let error = world.step(step).await.expect_err(step);
    assert_eq!(world.labels()[0], "AWSCURRENT=first", "{error}");
    for text in [format!("{error}"), format!("{error:?}")] {
        for secret in [Some(OLD.to_owned()), world.field("AWSPENDING", "password")].into_iter().flatten() {
            assert!(!text.contains(&secret), "{text}");
        }
    }
    error
}

pub fn assert_error(error: &Error, class: Class, code: Code, named: &str) {
    assert_eq!((error.class(), error.code()), (class, code), "{error}");
    assert!(error.to_string().contains(named), "`{named}` is not in: {error}");
    assert!(error.to_string().contains("\nhint: "), "no hint: {error}");
}
