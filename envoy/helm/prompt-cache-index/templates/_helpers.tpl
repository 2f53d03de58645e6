{{- define "index.name" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) }}
{{- $name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "index.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "index.labels" -}}
{{ include "index.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The whole configuration file: what the values say, and where the chart puts things. */}}
{{- define "index.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "listen" "0.0.0.0:8088" }}
{{- $options := deepCopy .Values.store.options }}
{{- if eq .Values.store.kind "embedded" }}
{{- $_ := set $options "data_dir" "/var/lib/prompt-cache" }}
{{- else }}
{{- $_ := set $options "url_file" "/run/prompt-cache/store/url" }}
{{- /* Until everybody knows that this replica is going. */}}
{{- $_ := set $config "limits" (merge ($config.limits | default dict) (dict "shutdown_delay_ms" 5000)) }}
{{- end }}
{{- $_ := set $config "store" (dict .Values.store.kind $options) }}
{{- if .Values.auth.existingSecret }}
{{- if .Values.auth.tokenKey }}{{ $_ := set $config "auth_token_file" "/run/prompt-cache/auth/token" }}{{ end }}
{{- if .Values.auth.adminTokenKey }}{{ $_ := set $config "admin_token_file" "/run/prompt-cache/auth/admin-token" }}{{ end }}
{{- end }}
{{- if .Values.accounts.existingSecret }}
{{- $_ := set $config "accounts_file" "/run/prompt-cache/accounts/accounts.yaml" }}
{{- end }}
{{- toYaml $config }}
{{- end }}
