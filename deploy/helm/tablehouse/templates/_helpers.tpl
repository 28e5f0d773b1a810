{{/* Names. A StatefulSet's name becomes part of a label with a hash of eleven characters behind it, so 52 are left. */}}
{{- define "tablehouse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "tablehouse.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "tablehouse.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tablehouse.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tablehouse.serviceAccountName" -}}
{{- default (ternary (include "tablehouse.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "tablehouse.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tablehouse.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: worker
{{- end -}}

{{- define "tablehouse.group" -}}
{{- default (include "tablehouse.fullname" .) (include "tablehouse.text" (default "" .Values.settings.group)) -}}
{{- end -}}

{{/* The group as a label, which has at most 63 characters and ends with a letter or digit; others get a hash behind them. */}}
{{- define "tablehouse.groupLabels" -}}
{{- $group := include "tablehouse.group" . -}}
{{- if not (regexMatch "^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$" $group) -}}
{{- $group = printf "%s-%s" (trunc 50 $group) (sha256sum $group | trunc 10) -}}
{{- end -}}
tablehouse-group: {{ $group | quote }}
{{- end -}}

{{/*
With an autoscaler, the chart's or another one, the number is its own: what runs is kept. A first install begins with the fewest,
which only the chart's own autoscaler says; nothing is rendered otherwise. The number that runs is rendered rather than nothing,
since a field that Helm alone has set is taken away when it is left out, and Kubernetes then goes back to one worker.
*/}}
{{- define "tablehouse.replicas" -}}
{{- if or .Values.autoscaling.enabled (kindIs "invalid" .Values.replicaCount) -}}
{{- $running := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "tablehouse.fullname" .) -}}
{{- dig "spec" "replicas" (.Values.autoscaling.enabled | ternary .Values.autoscaling.minReplicas "") $running -}}
{{- else -}}
{{- .Values.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* A zone is that of nodes, unless nodeSelector or a required node affinity names the zone, or the nodes' label of it. */}}
{{- define "tablehouse.nodeSelector" -}}
{{- $label := "topology.kubernetes.io/zone" -}}
{{- $selector := deepCopy .Values.nodeSelector -}}
{{- with .Values.zone -}}
{{- $affinity := dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" dict $.Values.affinity -}}
{{- $placed := list $.Values.nodeSelector $affinity | toJson -}}
{{- if not (or (contains (quote $label) $placed) (contains (quote .) $placed)) -}}
{{- $_ := set $selector $label . -}}
{{- end -}}
{{- end -}}
{{- if $selector }}{{ toYaml $selector }}{{ end -}}
{{- end -}}

{{/* Pods of one zone are not spread over zones. */}}
{{- define "tablehouse.topologySpreadConstraints" -}}
{{- $workers := dict "matchLabels" (include "tablehouse.selectorLabels" . | fromYaml) -}}
{{- $constraints := list -}}
{{- range .Values.topologySpreadConstraints -}}
{{- if hasKey . "labelSelector" -}}
{{- $constraints = append $constraints . -}}
{{- else if not (and $.Values.zone (eq (toString .topologyKey) "topology.kubernetes.io/zone")) -}}
{{- $constraints = append $constraints (set (deepCopy .) "labelSelector" $workers) -}}
{{- end -}}
{{- end -}}
{{- if $constraints }}{{ toYaml $constraints }}{{ end -}}
{{- end -}}

{{- define "tablehouse.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "tablehouse.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tablehouse.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .Values.image.digest -}}
{{ $name }}@{{ .Values.image.digest }}
{{- else -}}
{{ $name }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* A number of YAML as the digits that were written: large ones would come out as 1e+09. */}}
{{- define "tablehouse.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* Seconds of a duration as settings spell it; as the worker, without a unit they are seconds. */}}
{{- define "tablehouse.seconds" -}}
{{- $text := include "tablehouse.text" . -}}
{{- $factor := get (dict "" 1.0 "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (regexFind "[a-z]*$" $text) -}}
{{- mulf (float64 (regexFind "^[0-9.]+" $text)) $factor -}}
{{- end -}}

{{/* Bytes of a size as settings spell it (512MiB), or as Kubernetes does (1Gi, 500M). */}}
{{- define "tablehouse.bytes" -}}
{{- $text := include "tablehouse.text" . -}}
{{- $number := regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text | trim | trimSuffix "B" -}}
{{- $factors := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- mulf (float64 $number) (get $factors $unit) -}}
{{- end -}}

{{/* Labels of the series that belong to these workers. */}}
{{- define "tablehouse.seriesSelector" -}}
{{- default (printf "namespace=%q,job=%q" .Release.Namespace (include "tablehouse.fullname" .)) .Values.metrics.prometheusRule.selector -}}
{{- end -}}

{{/* The environment of the worker's container. Kubernetes puts $(...) in from what stands above. */}}
{{- define "tablehouse.env" -}}
{{- /* A pod's name would lead to its old address for as long as anything on the way remembers it. */}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: TABLEHOUSE_BOOTSTRAP_SERVERS
  value: {{ .Values.kafka.bootstrapServers | quote }}
- name: TABLEHOUSE_TABLES
  value: /etc/tablehouse/tables.yaml
- name: TABLEHOUSE_DATA_DIR
  value: /var/lib/tablehouse
- name: TABLEHOUSE_HTTP_PORT
  value: {{ .Values.containerPorts.http | quote }}
- name: TABLEHOUSE_INTERNAL_PORT
  value: {{ .Values.containerPorts.internal | quote }}
- name: TABLEHOUSE_PROBE_PORT
  value: {{ .Values.containerPorts.probe | quote }}
- name: TABLEHOUSE_ADVERTISED_HOST
  value: $(POD_IP)
{{- with .Values.kafka }}
- name: TABLEHOUSE_KAFKA_SECURITY_PROTOCOL
  value: {{ .securityProtocol }}
{{- with .sasl }}
{{- if .mechanism }}
- name: TABLEHOUSE_KAFKA_SASL_MECHANISM
  value: {{ .mechanism }}
{{- $keys := dict "SASL_USERNAME" "username" "SASL_PASSWORD" "password" }}
{{- if eq .mechanism "OAUTHBEARER" }}
{{- $keys = dict "OAUTH_CLIENT_ID" "client-id" "OAUTH_CLIENT_SECRET" "client-secret" }}
- name: TABLEHOUSE_KAFKA_OAUTH_TOKEN_URL
  value: {{ .tokenUrl | quote }}
{{- if .scope }}
- name: TABLEHOUSE_KAFKA_OAUTH_SCOPE
  value: {{ .scope | quote }}
{{- end }}
{{- end }}
{{- $secret := .existingSecret }}
{{- range $name, $key := $keys }}
- name: TABLEHOUSE_KAFKA_{{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- with .tls }}
{{- if .existingSecret }}
- name: TABLEHOUSE_KAFKA_CA
  value: /etc/kafka-tls/ca.crt
{{- if .clientCertificate }}
- name: TABLEHOUSE_KAFKA_CERTIFICATE
  value: /etc/kafka-tls/tls.crt
- name: TABLEHOUSE_KAFKA_KEY
  value: /etc/kafka-tls/tls.key
{{- if .keyPasswordKey }}
- name: TABLEHOUSE_KAFKA_KEY_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .keyPasswordKey }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.zone }}
- name: TABLEHOUSE_ZONE
  value: {{ .Values.zone | quote }}
{{- end }}
{{- with .Values.internalAuth }}
{{- if .existingSecret }}
- name: TABLEHOUSE_INTERNAL_SECRETS
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .existingSecretKey }}
{{- end }}
{{- end }}
{{- with .Values.schemaRegistry }}
{{- $secret := .existingSecret }}
{{- range $name, $key := dict "USER" .userKey "PASSWORD" .passwordKey "TOKEN" .tokenKey }}
{{- if and $secret $key }}
- name: TABLEHOUSE_SCHEMA_REGISTRY_{{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- $group := dict "group" (include "tablehouse.fullname" .) }}
{{- range $name, $value := merge (deepCopy .Values.settings) $group }}
- name: TABLEHOUSE_{{ upper $name }}
  value: {{ include "tablehouse.text" $value | quote }}
{{- end }}
{{- end -}}

{{/* What a schema cannot say. Every problem is reported with the value's name and what would be right. */}}
{{- define "tablehouse.check" -}}
{{- $problems := list -}}
{{- if not .Values.kafka.bootstrapServers -}}
  {{- $problems = append $problems "kafka.bootstrapServers is required: host:port, or several separated by commas, like kafka-1:9092,kafka-2:9092" -}}
{{- end -}}

{{- with .Values.kafka -}}
  {{- $login := hasPrefix "SASL_" .securityProtocol -}}
  {{- $encrypted := hasSuffix "SSL" .securityProtocol -}}
  {{- if and $login (not .sasl.mechanism) -}}
    {{- $problems = append $problems (printf "kafka.sasl.mechanism is required with kafka.securityProtocol %s: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER" .securityProtocol) -}}
  {{- end -}}
  {{- if and .sasl.mechanism (not $login) -}}
    {{- $problems = append $problems (printf "kafka.sasl.mechanism is %s, which needs kafka.securityProtocol SASL_SSL or SASL_PLAINTEXT; it is %s" .sasl.mechanism .securityProtocol) -}}
  {{- end -}}
  {{- if and .sasl.mechanism (not .sasl.existingSecret) -}}
    {{- $problems = append $problems (printf "kafka.sasl.existingSecret is required with kafka.sasl.mechanism %s: the Secret with the login" .sasl.mechanism) -}}
  {{- end -}}
  {{- if and .sasl.existingSecret (not .sasl.mechanism) -}}
    {{- $problems = append $problems "kafka.sasl.mechanism is required with kafka.sasl.existingSecret" -}}
  {{- end -}}
  {{- $tokens := eq .sasl.mechanism "OAUTHBEARER" -}}
  {{- if and $tokens (not .sasl.tokenUrl) -}}
    {{- $problems = append $problems "kafka.sasl.tokenUrl is required with kafka.sasl.mechanism OAUTHBEARER" -}}
  {{- end -}}
  {{- if and (or .sasl.tokenUrl .sasl.scope) (not $tokens) -}}
    {{- $problems = append $problems "kafka.sasl.tokenUrl and kafka.sasl.scope are for kafka.sasl.mechanism OAUTHBEARER" -}}
  {{- end -}}
  {{- if and .tls.existingSecret (not $encrypted) -}}
    {{- $problems = append $problems (printf "kafka.tls.existingSecret needs kafka.securityProtocol SSL or SASL_SSL; it is %s" .securityProtocol) -}}
  {{- end -}}
  {{- if and .tls.clientCertificate (not .tls.existingSecret) -}}
    {{- $problems = append $problems "kafka.tls.existingSecret is required with kafka.tls.clientCertificate: the Secret with tls.crt and tls.key" -}}
  {{- end -}}
  {{- if and .tls.keyPasswordKey (not .tls.clientCertificate) -}}
    {{- $problems = append $problems "kafka.tls.clientCertificate is required with kafka.tls.keyPasswordKey" -}}
  {{- end -}}
{{- end -}}

{{- $names := list -}}
{{- range .Values.tables -}}
  {{- if has .name $names -}}
    {{- $problems = append $problems (printf "tables: %s is there twice; table names have to be unique" .name) -}}
  {{- end -}}
  {{- $names = append $names .name -}}
{{- end -}}
{{- if not $names -}}
  {{- $problems = append $problems "tables is required: give at least one, like [{name: users, source: {topic: users, key: string, value: json}}]" -}}
{{- end -}}

{{- $needed := addf (include "tablehouse.seconds" .Values.settings.shutdown_timeout | float64) (float64 .Values.preStopSleepSeconds) -}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) $needed -}}
  {{- $problems = append $problems (printf "terminationGracePeriodSeconds is %v, and has to be more than preStopSleepSeconds and settings.shutdown_timeout together, which are %v s: else a worker is killed while it commits" .Values.terminationGracePeriodSeconds $needed) -}}
{{- end -}}

{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- $budget := default "512MiB" .Values.settings.memory_budget -}}
{{- if and $limit (le (include "tablehouse.bytes" $limit | float64) (include "tablehouse.bytes" $budget | float64)) -}}
  {{- $problems = append $problems (printf "resources.limits.memory is %v, and has to be more than settings.memory_budget, %v, which does not include Python itself: leave as much again" (include "tablehouse.text" $limit) (include "tablehouse.text" $budget)) -}}
{{- end -}}

{{- $ports := dict -}}
{{- range $name := list "http" "internal" "probe" -}}
  {{- $port := get $.Values.containerPorts $name | int | toString -}}
  {{- with get $ports $port -}}
    {{- $problems = append $problems (printf "containerPorts.%s and containerPorts.%s must differ, both are %s" . $name $port) -}}
  {{- end -}}
  {{- $_ := set $ports $port $name -}}
{{- end -}}

{{- with .Values.autoscaling -}}
  {{- if .enabled -}}
    {{- if not .partitions -}}
      {{- $problems = append $problems "autoscaling.partitions is required with autoscaling: the partitions of the source topic that has the most; workers beyond them get nothing to do" -}}
    {{- else if gt (int .maxReplicas) (int .partitions) -}}
      {{- $problems = append $problems (printf "autoscaling.maxReplicas is %v, above autoscaling.partitions, %v: workers beyond the partitions get nothing to do" .maxReplicas .partitions) -}}
    {{- end -}}
    {{- if gt (int .minReplicas) (int .maxReplicas) -}}
      {{- $problems = append $problems (printf "autoscaling.minReplicas is %v, above autoscaling.maxReplicas, %v" .minReplicas .maxReplicas) -}}
    {{- end -}}
    {{- if not (dig "requests" "cpu" "" $.Values.resources) -}}
      {{- $problems = append $problems "resources.requests.cpu is required with autoscaling, which measures CPU use in percent of it" -}}
    {{- end -}}
  {{- end -}}
{{- end -}}

{{- with .Values.schemaRegistry -}}
  {{- $login := or .userKey .passwordKey -}}
  {{- if and .existingSecret (not (or .tokenKey $login)) -}}
    {{- $problems = append $problems "schemaRegistry.existingSecret needs schemaRegistry.userKey and schemaRegistry.passwordKey, or schemaRegistry.tokenKey: the keys of that Secret" -}}
  {{- end -}}
  {{- if and $login (not (and .userKey .passwordKey)) -}}
    {{- $problems = append $problems "schemaRegistry.userKey and schemaRegistry.passwordKey belong together, and one is missing" -}}
  {{- end -}}
  {{- if and $login .tokenKey -}}
    {{- $problems = append $problems "schemaRegistry.tokenKey excludes schemaRegistry.userKey and schemaRegistry.passwordKey: the registry takes one of them" -}}
  {{- end -}}
  {{- if and (or $login .tokenKey) (not .existingSecret) -}}
    {{- $problems = append $problems "schemaRegistry.existingSecret is required with schemaRegistry.userKey, passwordKey or tokenKey: the Secret that has them" -}}
  {{- end -}}
  {{- if and .existingSecret (not $.Values.settings.schema_registry) -}}
    {{- $problems = append $problems "settings.schema_registry is required with schemaRegistry.existingSecret: the URL of the schema registry" -}}
  {{- end -}}
{{- end -}}

{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
  {{- $problems = append $problems "ingress.hosts is required with ingress.enabled: at least one host name" -}}
{{- end -}}

{{- with .Values.test -}}
  {{- if and .table (not (has .table $names)) -}}
    {{- $problems = append $problems (printf "test.table is %s, which is not one of the tables (%s)" .table (join ", " $names)) -}}
  {{- end -}}
  {{- if and .table (not .key) -}}
    {{- $problems = append $problems "test.key is required with test.table: a key that has a row" -}}
  {{- else if and .key (not .table) -}}
    {{- $problems = append $problems "test.table is required with test.key" -}}
  {{- end -}}
{{- end -}}

{{- $rendered := list -}}
{{- range (include "tablehouse.env" . | fromYamlArray) -}}
  {{- $rendered = append $rendered .name -}}
{{- end -}}
{{- range .Values.extraEnv -}}
  {{- if has .name $rendered -}}
    {{- $problems = append $problems (printf "extraEnv: %s is set by the chart; give the value that it comes from" .name) -}}
  {{- end -}}
{{- end -}}

{{- if $problems -}}
  {{- fail (printf "\n  %s\n" (join "\n  " $problems)) -}}
{{- end -}}
{{- end -}}
