#!/bin/sh
set -eu
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
