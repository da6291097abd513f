//! Passwords and questions, against a server that has no user accounts.

use std::sync::Arc;
use std::time::Duration;

use qimg::communicator::keys::{KeyPair, Kind};
use qimg::communicator::ssh::{Key, Limits, Options, Ssh};
use qimg::communicator::wait::{Outcome, State};
use qimg::communicator::{Communicator, Exit};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Response, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet};

use crate::servers::{Dropbear, Listener, PASSWORD, Sshd, connect, fail, output, wait};

/// What the server takes: the methods, in the order in which all of them are wanted.
#[derive(Clone)]
struct Wants {
    methods: Vec<MethodKind>,
    questions: usize,
    done: usize,
}

impl Wants {
    fn answer(&mut self, method: MethodKind, right: bool) -> Auth {
        if right && self.methods.get(self.done) == Some(&method) {
            self.done += 1;
            if self.done == self.methods.len() {
                return Auth::Accept;
            }
            return self.reject(true);
        }
        self.reject(false)
    }

    fn reject(&self, partial_success: bool) -> Auth {
        Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&self.methods[self.done..=self.done])),
            partial_success,
        }
    }
}

impl Handler for Wants {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        Ok(self.answer(MethodKind::None, true))
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(self.answer(MethodKind::Password, password == PASSWORD))
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.answer(MethodKind::PublicKey, true))
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        _: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let right = response.is_some_and(|response| {
            let answers: Vec<_> = response.collect();
            !answers.is_empty() && answers.iter().all(|answer| answer == PASSWORD.as_bytes())
        });
        if right && self.questions <= 1 {
            return Ok(self.answer(MethodKind::KeyboardInteractive, true));
        }
        if self.questions == 0 {
            return Ok(self.reject(false));
        }
        if right {
            self.questions -= 1;
        }
        Ok(Auth::Partial {
            name: "PAM".into(),
            instructions: String::new().into(),
            prompts: vec![("Password: ".into(), false)].into(),
        })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        session.data(channel, data.to_vec())?;
        session.exit_status_request(channel, 0)?;
        session.close(channel)
    }
}

fn server(methods: &[MethodKind], questions: usize) -> Listener {
    let wants = Wants {
        methods: methods.to_vec(),
        questions,
        done: 0,
    };
    let mut config = russh::server::Config {
        auth_rejection_time: Duration::from_millis(10),
        auth_rejection_time_initial: Some(Duration::from_millis(1)),
        max_auth_attempts: 20,
        ..Default::default()
    };
    let mut random = russh::keys::key::safe_rng();
    config
        .keys
        .push(PrivateKey::random(&mut random, Algorithm::Ed25519).unwrap());
    let config = Arc::new(config);
    Listener::start(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            if let Ok(session) = run_stream(Arc::clone(&config), stream, wants.clone()).await {
                let _ = session.await;
            }
        });
    })
}

fn client(listener: &Listener, password: Option<&str>, key: bool) -> Ssh {
    let mut options = Options::new("127.0.0.1", listener.port, "tester");
    options.guest.credentials.password = password.map(ToOwned::to_owned);
    if key {
        let pair = KeyPair::generate(Kind::Ed25519, "").unwrap();
        options.guest.credentials.keys = vec![Key::from(&pair)];
    }
    connect(options)
}

const ONCE: Limits = Limits {
    timeout: Some(Duration::from_secs(20)),
    attempts: Some(1),
};

#[test]
fn passwords_open_the_guest_by_both_methods() {
    for (methods, questions) in [
        (vec![MethodKind::Password], 0),
        (vec![MethodKind::KeyboardInteractive], 1),
        (vec![MethodKind::KeyboardInteractive], 3),
        (vec![MethodKind::None], 0),
    ] {
        let listener = server(&methods, questions);
        let ssh = client(&listener, Some(PASSWORD), true);
        wait(&ssh);
        let (exit, out, _) = output(&ssh, "echoed");
        assert_eq!(
            (exit, out),
            (Exit::Code(0), vec!["echoed".to_owned()]),
            "{methods:?}"
        );
    }
}

#[test]
fn the_password_of_a_real_user_opens_the_guest() {
    let sshd = Sshd::start("");
    let dropbear = Dropbear::start(&sshd);
    let mut options = dropbear.options(&sshd);
    options.guest.credentials.keys.clear();
    options.guest.credentials.password = Some(PASSWORD.to_owned());
    let ssh = connect(options.clone());
    wait(&ssh);
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
    options.guest.credentials.password = Some("wrong".to_owned());
    let (_, report) = fail(&connect(options), &ONCE);
    assert!(report.cause().contains("password is refused"), "{report}");
}

#[test]
fn a_wrong_password_is_told_without_it() {
    for method in [MethodKind::Password, MethodKind::KeyboardInteractive] {
        let listener = server(&[method], 1);
        let ssh = client(&listener, Some("hunter2"), false);
        let (error, report) = fail(&ssh, &ONCE);
        assert_eq!(report.cause(), "the password is refused for tester");
        let told = format!("{error:?} {error} {report:?} {ssh:?}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_server_that_wants_several_proofs_gets_them_in_its_order() {
    use MethodKind::{KeyboardInteractive, Password, PublicKey};
    for methods in [
        vec![PublicKey, Password],
        vec![Password, PublicKey],
        vec![PublicKey, KeyboardInteractive],
        vec![KeyboardInteractive, PublicKey, Password],
    ] {
        let listener = server(&methods, 1);
        let ssh = client(&listener, Some(PASSWORD), true);
        wait(&ssh);
        assert_eq!(output(&ssh, "true").0, Exit::Code(0), "{methods:?}");
    }
    let listener = server(&[PublicKey, Password], 0);
    let (_, report) = fail(&client(&listener, None, true), &ONCE);
    let Some(State::Refused { tried, offered, .. }) = report.last() else {
        panic!("{report:?}");
    };
    assert_eq!(tried[0].outcome, Outcome::Partial);
    assert_eq!(*offered, ["password"]);
    assert!(report.cause().contains("wants more"), "{report}");
}

#[test]
fn questions_without_end_are_not_answered_without_end() {
    let listener = server(&[MethodKind::KeyboardInteractive], 1_000_000);
    let (_, report) = fail(&client(&listener, Some(PASSWORD), false), &ONCE);
    assert!(report.cause().contains("password is refused"), "{report}");
}

#[test]
fn a_server_of_no_method_we_have_is_told_by_what_it_offers() {
    let listener = server(&[MethodKind::Password], 0);
    let (_, report) = fail(&client(&listener, None, true), &ONCE);
    assert!(report.cause().contains("it offers password"), "{report}");
}

#[test]
fn refusals_are_counted_and_nothing_else() {
    let listener = server(&[MethodKind::Password], 0);
    let ssh = client(&listener, Some("x"), false);
    let limits = Limits {
        attempts: Some(3),
        ..ONCE
    };
    let (error, report) = fail(&ssh, &limits);
    assert_eq!(report.refusals, 3);
    assert!(error.to_string().contains("3 times"), "{error}");
    drop(ssh);
    let ssh = client(&listener, Some("x"), false);
    assert!(ssh.probe(Duration::from_secs(2)).is_err());
}
