{{/* All worker groups with their defaults filled in, as {"groups": [...]} in JSON. */}}
{{- define "penstock.groups" -}}
{{- $defaults := .Files.Get "files/worker-group.yaml" | fromYaml -}}
{{- $groups := list -}}
{{- range .Values.ray.workerGroups -}}
{{- $group := deepCopy . -}}
{{- range $key, $default := $defaults -}}
{{- if not (hasKey $group $key) -}}
{{- $_ := set $group $key $default -}}
{{- else if kindIs "map" $default -}}
{{- $inner := index $group $key -}}
{{- range $name, $value := $default -}}
{{- if not (hasKey $inner $name) -}}
{{- $_ := set $inner $name $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $shape := 0 -}}
{{- if ne $group.pool "cpu" -}}
{{- $shape = regexFind "[0-9]+$" $group.pool | int -}}
{{- end -}}
{{- $_ := set $group "gpusPerHost" $shape -}}
{{- $hosts := $group.hostsPerPod | int -}}
{{- if $shape -}}
{{- $hosts = div (int $group.gpusPerPod) $shape -}}
{{- end -}}
{{- $_ := set $group "hostsPerPod" $hosts -}}
{{- $_ := set $group "scales" (kindIs "float64" $group.minPods) -}}
{{- $groups = append $groups $group -}}
{{- end -}}
{{- dict "groups" $groups | toJson -}}
{{- end -}}

{{/* PENSTOCK_POOLS: hosts of each pool, as JSON. */}}
{{- define "penstock.pools" -}}
{{- $pools := dict -}}
{{- range (include "penstock.groups" . | fromJson).groups -}}
{{- $_ := set $pools .pool (mul (int .pods) (int .hostsPerPod)) -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/* PENSTOCK_POOLS_MIN: hosts at least of the pools that scale, as JSON; empty for none. */}}
{{- define "penstock.poolsMin" -}}
{{- $pools := dict -}}
{{- range (include "penstock.groups" . | fromJson).groups -}}
{{- if .scales -}}
{{- $_ := set $pools .pool (mul (int .minPods) (int .hostsPerPod)) -}}
{{- end -}}
{{- end -}}
{{- if $pools -}}
{{- toJson $pools -}}
{{- end -}}
{{- end -}}

{{/* GiB that the node cache may hold on a volume of a size: nine tenths, as compiled kernels and
     what libraries keep are there too. A pod that fills its emptyDir is evicted. Empty for a size
     below a GiB's tenth. Call with the size. */}}
{{- define "penstock.cacheGib" -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" . | float64 -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- $bytes := index (dict "" 1 "m" 0 "k" 1000 "Ki" 1024 "M" 1000000 "Mi" 1048576 "G" 1000000000 "Gi" 1073741824 "T" 1000000000000 "Ti" 1099511627776) $unit -}}
{{- $gib := round (divf (mulf 0.9 $number $bytes) 1073741824) 1 -}}
{{- if gt $gib 0.0 -}}
{{- $gib -}}
{{- end -}}
{{- end -}}
