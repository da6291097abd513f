#!/bin/sh
# What all images have.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -qy upgrade
apt-get -qy install chrony ca-certificates
