#!/bin/sh
set -eu
# What only this distribution needs.
systemctl enable unattended-upgrades
