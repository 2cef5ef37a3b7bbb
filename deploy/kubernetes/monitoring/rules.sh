#!/bin/sh
# Prints the alert rules of deploy/prometheus/rules/relevo.yml as a PrometheusRule of the Prometheus Operator.
set -eu
rules=$(dirname "$0")/../../prometheus/rules/relevo.yml
cat <<'HEAD'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: relevo
  labels:
    app.kubernetes.io/name: relevo
spec:
HEAD
sed 's/^\(.\)/  \1/' "$rules"
