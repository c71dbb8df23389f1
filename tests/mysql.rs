//! The kind `mysql` against Oracle's MySQL of its own, where one can be had: `make test` runs this then.

#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test stops at the first surprise")]

mod family;
mod support;

use family::Under;
use keywheel::error::{Class, Code, Which};
use keywheel_dev::mysql::Options;
use serde_json::json;
use support::sql::*;
use support::*;

cases! { Under::plain("mysql");
    single_user_rotates_in_eleven_calls_without_a_refused_sign_in
    any_name_and_password_works
    a_server_without_tls_never_sees_a_password_unless_the_secret_allows_it
    failures_are_told_apart_by_number
    the_probe_asks_for_what_the_application_needs
    a_crash_at_any_point_of_a_single_user_is_healed
    a_rotation_that_was_given_up_is_healed_by_the_next
    both_logins_live_and_take_turns
    extras_are_reported_and_revoked_on_request
    a_pair_is_known_by_an_older_version_after_an_edit_by_hand
    wrong_administrators_and_users_are_refused
    the_administrators_server_is_asked_who_one_is
    what_a_certificate_must_say_is_copied_to_the_letter
    an_administrator_need_not_be_root_and_cannot_give_what_it_has_not
    a_crash_at_any_point_of_a_pair_is_healed_with_all_rights
    two_secrets_with_one_administrator_rotate_at_once
}

cases! { Under::start("mysql", Options { tls: true, ..Options::default() });
    an_administrator_whom_rds_manages
}

const BOTH: [&str; 2] = ["AWSCURRENT", "AWSPREVIOUS"];
const ABLE: &str = "GRANT APPLICATION_PASSWORD_ADMIN ON *.* TO";

#[tokio::test]
async fn tls_is_verified_as_the_secret_says() {
    family::tls_is_verified_as_the_secret_says("mysql").await;
}

#[tokio::test]
async fn the_clone_can_do_what_the_base_user_can_now_and_later() {
    let under = Under::plain("mysql").await;
    for sql in [
        "SET GLOBAL partial_revokes = ON",
        "GRANT BACKUP_ADMIN ON *.* TO app WITH GRANT OPTION",
        "GRANT SELECT ON *.* TO app",
        "REVOKE SELECT ON mysql.* FROM app",
        "ALTER USER app FAILED_LOGIN_ATTEMPTS 5 PASSWORD_LOCK_TIME 2 PASSWORD HISTORY 3",
    ] {
        under.server.execute(sql).await.unwrap();
    }
    family::the_clone_can_do_what_the_base_user_can_now_and_later(under, "SET DEFAULT ROLE s TO app").await;
}

#[tokio::test]
async fn with_two_passwords_the_old_one_lives_until_the_next_rotation() {
    let under = Under::plain("mysql").await;
    under.server.execute(&format!("{ABLE} app")).await.unwrap();
    for strategy in [json!(null), json!("dual-password")] {
        under.server.execute(&format!("ALTER USER app IDENTIFIED BY '{OLD}'")).await.unwrap();
        let world = world(&with(&under.secret, json!({"strategy": strategy})));
        let mut total = 0;
        for step in STEPS {
            world.step(step).await.unwrap();
            total += world.store.calls().len();
        }
        assert_eq!(total, 11);
        under.all_work(&world, &BOTH, "first").await;
        rotate_again(&world, THIRD).await.unwrap();
        under.all_work(&world, &BOTH, "second").await;
        assert!(!under.log().contains(&login(&world, "AWSCURRENT").1), "the log has the password");
        assert_eq!(under.refused_sign_ins(), 0, "{}", under.log());
    }
    assert!(under.server.connect("app", OLD).await.is_err());
}

#[tokio::test]
async fn with_two_passwords_a_crash_at_any_point_leaves_both_versions_working() {
    let under = Under::plain("mysql").await;
    let mut number = 0;
    for step in STEPS {
        for point in 0.. {
            number += 1;
            let user = format!("user_{number}");
            under.server.execute(&format!("CREATE USER {user} IDENTIFIED BY '{OLD}'")).await.unwrap();
            under.server.execute(&format!("{ABLE} {user}")).await.unwrap();
            let world = world(&with(&under.secret, json!({"username": user})));
            world.rotate(TOKEN).await.unwrap();
            world.service.begin_rotation(SECRET, THIRD).unwrap();
            for earlier in STEPS.into_iter().take_while(|it| *it != step) {
                world.step_for(earlier, THIRD).await.unwrap();
            }
            let crashed = CrashAt::new(point, world.step_for(step, THIRD)).await.is_none();
            let when = format!("{step} at {point}");
            under.all_work(&world, &["AWSCURRENT"], &when).await;
            world.rotate(THIRD).await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
            under.all_work(&world, &BOTH, &when).await;
            if !crashed {
                break;
            }
        }
    }
    assert!(number > 30, "{number}");
}

#[tokio::test]
async fn with_two_passwords_a_rotation_that_was_given_up_takes_none_of_them() {
    let under = Under::plain("mysql").await;
    under.server.execute(&format!("{ABLE} app")).await.unwrap();
    let world = world(&under.secret);
    world.rotate(TOKEN).await.unwrap();
    for token in [THIRD, FOURTH] {
        world.service.begin_rotation(SECRET, token).unwrap();
        world.step_for("createSecret", token).await.unwrap();
        world.step_for("setSecret", token).await.unwrap();
        world.service.cancel_rotation(SECRET).unwrap();
        world.service.update_stage(SECRET, "AWSPENDING", None, Some(token)).unwrap();
        under.all_work(&world, &["AWSCURRENT"], "given up").await;
    }
    rotate_again(&world, "fifth-version-0000000000000000000000").await.unwrap();
    under.all_work(&world, &BOTH, "after that").await;
}

#[tokio::test]
async fn a_login_that_may_not_keep_two_passwords_has_one_unless_the_secret_insists() {
    let under = Under::plain("mysql").await;
    let insisting = world(&with(&under.secret, json!({"strategy": "dual-password"})));
    let error = failure(&insisting, "setSecret").await;
    assert_error(&error, Class::Config, Code::Privilege, "may not keep its old password");
    assert!(error.to_string().contains("GRANT APPLICATION_PASSWORD_ADMIN ON *.* TO 'app'"), "{error}");
    under.all_work(&insisting, &["AWSCURRENT"], "nothing was changed").await;
    let world = world(&under.secret);
    world.rotate(TOKEN).await.unwrap();
    under.all_work(&world, &["AWSCURRENT"], "one password").await;
    assert!(!under.works(&login(&world, "AWSPREVIOUS")).await);
}

#[tokio::test]
async fn a_login_that_must_name_its_password_does() {
    let under = Under::plain("mysql").await;
    under.server.execute("ALTER USER app PASSWORD REQUIRE CURRENT").await.unwrap();
    let world = world(&under.secret);
    world.rotate(TOKEN).await.unwrap();
    under.all_work(&world, &["AWSCURRENT"], "with REPLACE").await;
}

#[tokio::test]
async fn a_login_that_is_locked_is_asked_once_more_and_no_more() {
    let under = Under::plain("mysql").await;
    under.server.execute("ALTER USER app FAILED_LOGIN_ATTEMPTS 1 PASSWORD_LOCK_TIME 1").await.unwrap();
    let error = failure(&world(&with(&under.secret, json!({"password": "wrong"}))), "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Current), Code::NotPermitted, "error 3955");
}

#[tokio::test]
async fn the_binary_log_has_no_password() {
    let settings = vec!["log-bin".to_owned(), "server-id=1".to_owned()];
    let under = Under::start("mysql", Options { settings, ..Options::default() }).await;
    let pair = under.pair();
    pair.rotate(TOKEN).await.unwrap();
    under.server.execute(&format!("CREATE USER single IDENTIFIED BY '{OLD}'; {ABLE} single")).await.unwrap();
    let single = world(&with(&under.secret, json!({"username": "single"})));
    single.rotate(TOKEN).await.unwrap();
    let log = String::from_utf8_lossy(&under.server.binlog().unwrap()).into_owned();
    assert!(log.contains("app_clone"));
    for world in [pair, single] {
        assert!(!log.contains(&login(&world, "AWSCURRENT").1));
    }
}

#[tokio::test]
async fn a_password_that_the_policy_refuses_leaves_no_rotation_behind() {
    let under = Under::plain("mysql").await;
    under
        .server
        .execute("INSTALL COMPONENT 'file://component_validate_password'; SET GLOBAL validate_password.length = 40")
        .await
        .unwrap();
    let mut world = world(&under.secret);
    let error = failure(&world, "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Pending), Code::PasswordPolicy, "AWSPENDING is taken away");
    assert_eq!(world.labels(), ["AWSCURRENT=first"]);
    world.settings.passwords =
        keywheel::password::Environment::read(|variable| (variable == "PASSWORD_LENGTH").then(|| "40".to_owned()));
    rotate_again(&world, THIRD).await.unwrap();
    under.all_work(&world, &["AWSCURRENT"], "with a longer password").await;
}
