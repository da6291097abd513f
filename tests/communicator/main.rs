//! The way into the guest, against real servers: OpenSSH's sshd and dropbear as children on loopback ports that the
//! kernel chose, a server of passwords and questions, and servers that do everything wrong.

mod ansible;
mod bad_guests;
mod broken;
mod commands;
mod forwarding;
mod hostile;
mod keys;
mod logins;
mod passwords;
mod servers;
mod transfers;
mod trees;
mod waiting;
