// Job DSL: three jobs for all images, and no copy of any of them.
String repository = 'https://git.example/images.git'

pipelineJob('image-build-publish') {
    description('Builds, tests and publishes one image.')
    parameters {
        stringParam('IMAGE', 'debian-cloud', 'The folder of the image below images/')
        stringParam('ZONES', 'ch-gva-2', 'Zones of the template, separated by commas')
        booleanParam('CLOUD', false, 'Also make a template of it in preproduction')
    }
    definition {
        cpsScm {
            scm {
                git {
                    remote { url(repository) }
                    branch('main')
                }
            }
            scriptPath('ci/Jenkinsfile')
        }
    }
}

pipelineJob('image-test') {
    description('Starts an instance of a template, checks it, and destroys it.')
    parameters {
        stringParam('IMAGE', 'debian-cloud', 'The folder whose checks are made')
        stringParam('TEMPLATE_ID', '', 'The template')
        stringParam('ZONE', 'ch-gva-2', 'Where the instance is')
        stringParam('ENVIRONMENT', 'ppapi', 'ppapi for a template of preproduction, api for one that is released')
    }
    definition {
        cps {
            sandbox()
            script('''
                node {
                    checkout scm
                    withCredentials([
                        string(credentialsId: 'exoscale-key', variable: 'EXOSCALE_API_KEY'),
                        string(credentialsId: 'exoscale-secret', variable: 'EXOSCALE_API_SECRET')
                    ]) {
                        try {
                            sh 'qimg test "exoscale:$TEMPLATE_ID" --environment "$ENVIRONMENT" --zone "$ZONE" -s "images/$IMAGE/checks.yaml" --retry-timeout 5m --report junit=template.xml'
                        } finally {
                            junit 'template.xml'
                        }
                    }
                }
            '''.stripIndent())
        }
    }
}

pipelineJob('image-release') {
    description('Registers a template of preproduction in production.')
    parameters {
        stringParam('TEMPLATE_ID', '', 'The template in preproduction')
        stringParam('ZONES', 'ch-gva-2', 'Zones that get it, separated by commas')
    }
    definition {
        cps {
            sandbox()
            script('''
                node {
                    withCredentials([
                        string(credentialsId: 'exoscale-key', variable: 'EXOSCALE_API_KEY'),
                        string(credentialsId: 'exoscale-secret', variable: 'EXOSCALE_API_SECRET')
                    ]) {
                        sh 'qimg release "$TEMPLATE_ID" --from ppapi --to api --zone "$ZONES"'
                    }
                }
            '''.stripIndent())
        }
    }
}
