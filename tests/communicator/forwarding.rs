//! The agent in the guest: there only where the caller wants it.

use qimg::communicator::Exit;

use crate::logins::Agent;
use crate::servers::{Dropbear, Sshd, connect, keygen, output};

#[test]
fn the_agent_reaches_the_guest_only_if_it_is_forwarded() {
    let sshd = Sshd::start("AllowAgentForwarding yes");
    let agent = Agent::start();
    let key = sshd.at("agents");
    keygen(&["-t", "ed25519", "-C", "of the agent", "-f"], &key, "");
    agent.add(&key);

    let mut options = sshd.options();
    let ssh = connect(options.clone());
    assert_eq!(output(&ssh, "ssh-add -l").0, Exit::Code(2));
    assert_eq!(output(&ssh, "echo \"<$SSH_AUTH_SOCK>\"").1, ["<>"]);

    options.forward_agent = Some(agent.socket());
    let ssh = connect(options.clone());
    let (exit, out, err) = output(&ssh, "ssh-add -l");
    assert_eq!(exit, Exit::Code(0), "{err:?}");
    assert!(out[0].contains("of the agent"), "{out:?}");

    // An agent that is gone is an agent that does not answer.
    options.forward_agent = Some(sshd.at("nowhere"));
    let ssh = connect(options);
    assert_ne!(output(&ssh, "ssh-add -l").0, Exit::Code(0));
    assert_eq!(output(&ssh, "true").0, Exit::Code(0));
}

#[test]
fn a_guest_that_takes_no_agent_runs_the_command_all_the_same() {
    let sshd = Sshd::start("AllowAgentForwarding no");
    let agent = Agent::start();
    let mut options = sshd.options();
    options.forward_agent = Some(agent.socket());
    let ssh = connect(options.clone());
    assert_eq!(output(&ssh, "echo \"<$SSH_AUTH_SOCK>\"").1, ["<>"]);

    let dropbear = Dropbear::start(&sshd);
    let mut options = dropbear.options(&sshd);
    options.forward_agent = Some(agent.socket());
    let ssh = connect(options);
    assert_eq!(output(&ssh, "ssh-add -l").0, Exit::Code(1), "no keys in it");
}
