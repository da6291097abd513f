//! Inodes that are in use or not in ways of their own, and such that cannot be read.

use super::*;
