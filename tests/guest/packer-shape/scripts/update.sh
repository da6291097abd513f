#!/bin/sh
set -eu
apt-get -q update
