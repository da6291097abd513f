//! LVM2.
