//! Guests that let us in and then mean harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use qimg::communicator::keys::{KeyPair, Kind};
use qimg::communicator::ssh::{Options, Ssh, Transfer};
use qimg::communicator::{Communicator, Exit};
use qimg::{ErrorKind, Result};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet};

use crate::servers::{Listener, connect, output, wait};

/// What the guest does with every command and subsystem.
#[derive(Clone, Default)]
struct Script {
    /// It never says whether it begins.
    mute: bool,
    /// It says this at once.
    says: Vec<u8>,
    /// And this again and again, without end.
    repeats: Vec<u8>,
    exit: Option<u32>,
    close: bool,
    /// Ends the connection in the middle.
    hangs_up: bool,
    /// Opens channels of its own, and counts those it gets.
    opens: Option<Arc<AtomicU32>>,
}

impl Script {
    async fn play(self, handle: Handle, channel: ChannelId) {
        if let Some(opened) = &self.opens {
            for _ in 0..50 {
                let agent = handle.channel_open_agent().await.is_ok();
                let port = handle
                    .channel_open_forwarded_tcpip("a", 1, "b", 2)
                    .await
                    .is_ok();
                let x11 = handle.channel_open_x11("a", 1).await.is_ok();
                let session = handle.channel_open_session().await.is_ok();
                let got = [agent, port, x11, session]
                    .iter()
                    .filter(|got| **got)
                    .count();
                opened.fetch_add(u32::try_from(got).unwrap(), Ordering::AcqRel);
            }
        }
        let _ = handle.data(channel, self.says).await;
        while !self.repeats.is_empty() {
            if handle.data(channel, self.repeats.clone()).await.is_err() {
                return;
            }
        }
        if self.hangs_up {
            let reason = russh::Disconnect::ByApplication;
            let _ = handle
                .disconnect(reason, "power cut".to_owned(), String::new())
                .await;
            return;
        }
        if let Some(code) = self.exit {
            let _ = handle.exit_status_request(channel, code).await;
        }
        if self.close {
            let _ = handle.close(channel).await;
        }
    }
}

impl Handler for Script {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> std::result::Result<Auth, russh::Error> {
        Ok(Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
            partial_success: false,
        })
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: russh::server::VerifiedPublicKey<'_>,
    ) -> std::result::Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        _: russh::server::PublicKeyOffer<'_>,
    ) -> std::result::Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> std::result::Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> std::result::Result<(), russh::Error> {
        if !self.mute {
            session.channel_success(channel)?;
            tokio::spawn(self.clone().play(session.handle(), channel));
        }
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> std::result::Result<(), russh::Error> {
        self.exec_request(channel, &[], session).await
    }
}

fn guest(script: Script) -> Listener {
    let mut config = russh::server::Config {
        auth_rejection_time_initial: Some(Duration::from_millis(1)),
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
            if let Ok(session) = run_stream(Arc::clone(&config), stream, script.clone()).await {
                let _ = session.await;
            }
        });
    })
}

fn enter(listener: &Listener, transfer: Transfer) -> Ssh {
    let mut options = Options::new("127.0.0.1", listener.port, "tester");
    let pair = KeyPair::generate(Kind::Ed25519, "").unwrap();
    options.guest.credentials.keys = vec![(&pair).into()];
    options.patience = Duration::from_secs(3);
    options.transfer = transfer;
    let ssh = connect(options);
    wait(&ssh);
    ssh
}

fn upload(ssh: &Ssh) -> Result<()> {
    ssh.upload(&mut &[b'x'; 100_000][..], 100_000, "/tmp/x", 0o600)
}

#[test]
fn a_guest_that_never_begins_is_left() {
    let listener = guest(Script {
        mute: true,
        ..Script::default()
    });
    let ssh = enter(&listener, Transfer::Scp);
    let started = Instant::now();
    let error = ssh.run("true", None, &mut |_, _| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_command_that_has_ended_is_not_waited_for_without_end() {
    let listener = guest(Script {
        says: b"out\n".to_vec(),
        exit: Some(3),
        ..Script::default()
    });
    let ssh = enter(&listener, Transfer::Scp);
    let started = Instant::now();
    assert_eq!(output(&ssh, "x").0, Exit::Code(3));
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_session_without_an_exit_status_was_cut_off() {
    let closes = Script {
        close: true,
        ..Script::default()
    };
    let hangs_up = Script {
        hangs_up: true,
        ..Script::default()
    };
    for script in [closes, hangs_up] {
        let listener = guest(script);
        let ssh = enter(&listener, Transfer::Scp);
        assert_eq!(output(&ssh, "x").0, Exit::Disconnected);
    }
}

#[test]
fn a_guest_gets_no_channel_that_it_opens_by_itself() {
    let opened = Arc::new(AtomicU32::new(0));
    let listener = guest(Script {
        opens: Some(Arc::clone(&opened)),
        exit: Some(0),
        close: true,
        ..Script::default()
    });
    let ssh = enter(&listener, Transfer::Scp);
    assert_eq!(output(&ssh, "x").0, Exit::Code(0));
    assert_eq!(opened.load(Ordering::Acquire), 0);
}

#[test]
fn endless_output_is_read_until_the_time_is_over() {
    let listener = guest(Script {
        repeats: vec![b'x'; 30_000],
        ..Script::default()
    });
    let ssh = enter(&listener, Transfer::Scp);
    let started = Instant::now();
    let time = Some(Duration::from_secs(1));
    let mut longest = 0;
    let error = ssh
        .run("x", time, &mut |_, line| longest = longest.max(line.len()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(longest > 0 && longest <= 64 * 1024);
}

#[test]
fn transfers_survive_every_kind_of_nonsense() {
    let number = |value: u32| value.to_be_bytes().to_vec();
    let version = [number(5), vec![2], number(3)].concat();
    let handle = |id: u32| [number(10), vec![102], number(id), number(1), vec![b'h']].concat();
    let status = |id: u32, code: u32| [number(9), vec![101], number(id), number(code)].concat();
    let data = |id: u32, length: u32| {
        let bytes = vec![0; length as usize];
        [
            number(9 + length),
            vec![103],
            number(id),
            number(length),
            bytes,
        ]
        .concat()
    };
    let nonsense: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; 10],
        vec![0xff; 1000],
        b"C0644 18446744073709551615 x\nabc".to_vec(),
        b"\0\0\0\0\0\0".to_vec(),
        b"\x01no\n".to_vec(),
        b"\x02".to_vec(),
        b"hello\n".to_vec(),
        version.clone(),
        [version.clone(), number(0)].concat(),
        [version.clone(), number(u32::MAX)].concat(),
        [version.clone(), handle(7)].concat(),
        [version.clone(), handle(1), status(2, 0), status(9, 0)].concat(),
        [version.clone(), handle(1), status(2, 4)].concat(),
        [version.clone(), handle(1), data(2, 0)].concat(),
        [
            version.clone(),
            handle(1),
            data(2, 5),
            data(3, 5),
            status(4, 1),
        ]
        .concat(),
        [version.clone(), handle(1), data(2, 100_000)].concat(),
        [version, vec![0, 0, 0, 9, 101, 0, 0]].concat(),
    ];
    for (number, says) in nonsense.into_iter().enumerate() {
        let script = Script {
            says,
            exit: Some(1),
            close: true,
            ..Script::default()
        };
        let listener = guest(script);
        for transfer in [Transfer::Scp, Transfer::Sftp] {
            let ssh = enter(&listener, transfer);
            let started = Instant::now();
            assert!(upload(&ssh).is_err(), "{number} {transfer:?}");
            assert!(
                ssh.download("/x", &mut Vec::new()).is_err(),
                "{number} {transfer:?}"
            );
            let took = started.elapsed();
            assert!(
                took < Duration::from_secs(5),
                "{number} {transfer:?} {took:?}"
            );
        }
    }
    // Without an end to it.
    for repeats in [vec![b'x'; 10_000], vec![0; 10_000], b"C0644 0 x\n".to_vec()] {
        let listener = guest(Script {
            repeats,
            ..Script::default()
        });
        let ssh = enter(&listener, Transfer::Sftp);
        assert!(upload(&ssh).is_err());
    }
}
