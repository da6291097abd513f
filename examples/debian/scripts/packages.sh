#!/bin/sh
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -qy install nginx-light
